
"use strict";
(() => {
  const MAX_CALLERS = 100, MAX_WORKLOADS = 40;
  const find = (id) => document.getElementById(id);
  const make = (name, text, className) => {
    const element = document.createElement(name);
    if (text !== undefined) element.textContent = text;
    if (className) element.className = className;
    return element;
  };
  const sections = [...document.querySelectorAll("section.workload")].map((element) => ({
    element,
    name: element.dataset.workload,
    namespace: element.dataset.namespace,
    rows: [...element.querySelectorAll("tbody tr")].map((row) => ({
      element: row,
      callers: row.dataset.callers,
      kinds: row.dataset.kinds.split(","),
      method: row.dataset.method,
      text: (element.dataset.workload + " " + row.textContent).toLowerCase(),
    })),
    text: element.textContent.toLowerCase(),
  }));
  const total = sections.reduce((sum, section) => sum + section.rows.length, 0);
  const [form, grid, dialog] = ["filters", "grid", "cell"].map(find);
  const [search, namespace, workload, kind, method] = ["search", "namespace", "workload", "kind", "method"].map(find);

  const open = (callers, section, rows) => {
    const title = make("h2", callers + " at " + section.name);
    title.id = "cell-title";
    const table = make("table");
    table.append(section.element.querySelector("thead").cloneNode(true), make("tbody"));
    rows.forEach((row) => table.tBodies[0].append(row.element.cloneNode(true)));
    const close = make("form");
    close.method = "dialog";
    close.append(make("button", "Close"));
    const body = make("div", undefined, "workload");
    body.append(title, table, close);
    dialog.replaceChildren(body);
    dialog.showModal();
  };

  const cell = (callers, section, rows) => {
    const methods = [...new Set(rows.map((row) => row.method))];
    const count = rows.length === 1 ? "1 permission" : rows.length + " permissions";
    // A connection has no method.
    const isCounted = !method || methods.length > 3;
    const text = isCounted ? count : methods.map((each) => (each === "any" ? "any method" : each)).join(", ");
    const kinds = new Set(rows.flatMap((row) => row.kinds));
    const isAlarm = kinds.has("no-identity") || kinds.has("every caller");
    const button = make("button", text, isAlarm ? "alarm" : kinds.has("federated") ? "federated" : "");
    button.type = "button";
    button.setAttribute("aria-label", callers + " at " + section.name + ": " + text + ", " + [...kinds].join(", "));
    button.addEventListener("click", () => open(callers, section, rows));
    return button;
  };

  const draw = (shown) => {
    const columns = shown.slice(0, MAX_WORKLOADS);
    const callers = new Map();
    columns.forEach((section, column) => section.visible.forEach((row) => {
      const cells = callers.get(row.callers) ?? { kinds: new Set(), columns: new Map() };
      row.kinds.forEach((each) => cells.kinds.add(each));
      cells.columns.set(column, [...(cells.columns.get(column) ?? []), row]);
      callers.set(row.callers, cells);
    }));
    const table = make("table");
    const head = table.createTHead().insertRow();
    const heading = (text, scope) => {
      const element = make("th", text);
      element.scope = scope;
      return element;
    };
    head.append(heading("Callers", "col"));
    columns.forEach((section) => head.append(heading(section.name, "col")));
    const body = table.createTBody();
    const listed = [...callers].sort(([one], [other]) => (one < other ? -1 : 1)).slice(0, MAX_CALLERS);
    for (const [name, { kinds, columns: cells }] of listed) {
      const row = body.insertRow();
      const title = heading("", "row");
      title.append(make("code", name), " ");
      kinds.forEach((each) => {
        if (each !== "local") title.append(make("span", each, "kind " + (each === "every caller" ? "everyone" : each)), " ");
      });
      row.append(title);
      columns.forEach((section, column) => {
        const place = row.insertCell();
        if (cells.has(column)) place.append(cell(name, section, cells.get(column)));
      });
    }
    const scroll = make("div", undefined, "scroll");
    scroll.tabIndex = 0;
    scroll.setAttribute("role", "region");
    scroll.setAttribute("aria-label", "Grid of callers and workloads");
    scroll.append(table);
    grid.replaceChildren(scroll);
    const isCut = callers.size > MAX_CALLERS || shown.length > MAX_WORKLOADS;
    if (isCut) {
      grid.append(make("p", `The grid has ${columns.length} of ${shown.length} workloads, and ${listed.length} of their ` +
        `${callers.size} callers. Filter to see others. The tables below have all.`));
    }
    grid.hidden = listed.length === 0;
  };

  const update = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter((word) => word);
    const isFiltered = words.length > 0 || Boolean(kind.value || method?.value);
    let count = 0;
    const shown = [];
    for (const section of sections) {
      const isChosen = (!workload.value || workload.value === section.name) &&
        (!namespace.value || namespace.value === section.namespace);
      section.visible = section.rows.filter((row) => isChosen &&
        words.every((word) => row.text.includes(word)) &&
        (!kind.value || row.kinds.includes(kind.value)) && (!method?.value || row.method === method.value));
      const visible = new Set(section.visible);
      section.rows.forEach((row) => { row.element.hidden = !visible.has(row); });
      // A workload without rows stays if only the words are for rows, and it has them.
      const isEmpty = section.rows.length === 0;
      const hasWords = !kind.value && !method?.value && words.every((word) => section.text.includes(word));
      section.element.hidden = !isChosen || (isEmpty ? isFiltered && !hasWords : section.visible.length === 0);
      if (!section.element.hidden) shown.push(section);
      count += section.visible.length;
    }
    const filters = [[namespace, "namespace"], [workload, "workload"], [kind, "trust domain"], [method, "method"]]
      .filter(([element]) => element?.value).map(([element, name]) => `${name} ${element.value}`);
    if (words.length) filters.unshift(`search "${search.value.trim()}"`);
    find("shown").textContent = `${count} of ${total} permissions` + (filters.length ? `: ${filters.join(", ")}` : "");
    find("nothing").hidden = shown.length > 0;
    draw(shown);
  };

  form.addEventListener("input", update);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(update));
  form.hidden = false;
  update();
})();
