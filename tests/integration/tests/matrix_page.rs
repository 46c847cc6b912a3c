//! The page and the chart of `spiffe-authz matrix` in a real browser.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use spiffe_authz_integration::browser::Browser;
use spiffe_authz_integration::scratch::Scratch;
use spiffe_authz_integration::tools;

const WINDOW: [u32; 2] = [1200, 1000];

/// A document whose values would be markup, or would change how a terminal or a page shows others.
const HOSTILE: &str = r#"{"trustDomain": "example.org", "identity": {"peer": "optional"}, "policies": [
  {"name": "all", "rules": [
    {"to": [{"operation": {"paths": ["/</script><img/src=x/onerror=bad()>", "/a|b`*_[c](d)", "/\u202e\"'&lt"]}}]}
  ]},
  {"name": "header", "rules": [{"when": [
    {"key": "request.headers[x-a]", "values": ["\" autofocus onfocus=bad() x=\"", "</style><script>bad()</script>", "LONG"]}
  ]}]}
]}"#;

/// Writes the matrix of files in a format, and returns its path.
fn matrix(scratch: &Scratch, format: &str, arguments: &[&str]) -> Result<PathBuf> {
    let file = scratch.join(&format!("matrix.{format}"));
    let mut command = Command::new(tools::path(tools::COMMAND)?);
    command.args(["matrix", "--format", format, "--output"]).arg(&file).args(arguments).current_dir(scratch.path());
    let output = command.output()?;
    anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(file)
}

/// Writes the matrix of the example in docs/review.md.
fn of_example(scratch: &Scratch, format: &str) -> Result<PathBuf> {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/policy/mesh.yaml");
    let text = fs::read_to_string(example)?;
    // The workloads of this namespace are open.
    scratch.write(
        "mesh.yaml",
        &text.replace("namespace: istio-system}\nspec: {}", "namespace: istio-system}\nspec: {rules: [{}]}"),
    )?;
    let mesh = ["--trust-domain=example.org", "--federated-trust-domain=example.io", "mesh.yaml"];
    matrix(scratch, format, &mesh)
}

fn hostile(scratch: &Scratch, format: &str) -> Result<PathBuf> {
    scratch.write("<b>hostile\".json", &HOSTILE.replace("LONG", &"long".repeat(2_000)))?;
    matrix(scratch, format, &["<b>hostile\".json"])
}

/// Returns the first cell of each row of the tables of workloads that is visible.
const ROWS: &str =
    "[...document.querySelectorAll('section.workload tbody tr')].filter((row) => row.getClientRects().length)
    .map((row) => row.cells[0].textContent)";

/// Returns an expression that sets a filter, and returns the visible rows.
fn filtered(id: &str, value: &str) -> String {
    let (id, value) = (json!(id), json!(value));
    format!(
        "(() => {{ const field = document.getElementById({id}); field.value = {value};
          field.dispatchEvent(new Event('input', {{bubbles: true}})); return {ROWS}; }})()"
    )
}

/// Checks that the page loaded nothing, ran no other script and reported no error.
fn assert_quiet(browser: &Browser, file: &Path) {
    let urls: Vec<&Value> = browser.events("Network.requestWillBeSent").map(|event| &event["request"]["url"]).collect();
    assert_eq!(urls.len(), 1, "{urls:?}");
    assert!(urls[0].as_str().is_some_and(|url| url.starts_with("file://") && url.ends_with(".html")), "{urls:?}");
    for event in
        ["Runtime.exceptionThrown", "Page.javascriptDialogOpening", "Log.entryAdded", "Runtime.consoleAPICalled"]
    {
        let events: Vec<&Value> = browser.events(event).collect();
        assert!(events.is_empty(), "{}: {events:?}", file.display());
    }
}

/// Returns the path for a screenshot, which people look at.
fn screenshot(name: &str) -> Result<PathBuf> {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("matrix-page");
    fs::create_dir_all(&directory)?;
    Ok(directory.join(name))
}

#[test]
fn people_search_and_filter() -> Result<()> {
    let scratch = Scratch::new()?;
    let file = of_example(&scratch, "html")?;
    let mut browser = Browser::open(&scratch, &file, WINDOW)?;
    browser.screenshot(&screenshot("light.png")?)?;
    let all = browser.evaluate(ROWS)?;
    let (shop, partner, any) = ("example.org/ns/web/sa/shop", "example.io/*", "any accepted caller");
    let count = all.as_array().context("no rows")?.len();
    assert!(count > 6, "{all}");
    assert_eq!(browser.evaluate(&filtered("search", "SHOP products"))?, json!([shop]));
    assert_eq!(
        browser.evaluate("document.getElementById('shown').textContent")?,
        format!("1 of {count} permissions: search \"SHOP products\"")
    );
    assert_eq!(browser.evaluate(&filtered("search", "no such caller"))?, json!([]));
    assert_eq!(browser.evaluate("document.getElementById('nothing').hidden")?, false);
    browser.evaluate(&filtered("search", ""))?;
    assert_eq!(browser.evaluate(&filtered("method", "GET"))?, json!([shop, partner]));
    browser.evaluate(&filtered("method", ""))?;
    assert_eq!(browser.evaluate(&filtered("workload", "web: app=catalog"))?, json!([shop, partner, any]));
    assert_eq!(browser.evaluate(&filtered("kind", "federated"))?, json!([partner, any]));
    browser.evaluate(&filtered("workload", ""))?;
    browser.evaluate(&filtered("kind", ""))?;
    assert_eq!(browser.evaluate(&filtered("namespace", "data"))?, json!(["example.org/ns/web/sa/*", any, any]));
    // The button shows everything again.
    browser.evaluate("document.querySelector('button[type=reset]').click()")?;
    assert_eq!(browser.evaluate(&format!("new Promise((done) => setTimeout(() => done({ROWS}), 50))"))?, all);
    browser.set_medium("screen", true)?;
    browser.screenshot(&screenshot("dark.png")?)?;
    assert_quiet(&browser, &file);
    Ok(())
}

#[test]
fn the_grid_shows_details_by_keyboard() -> Result<()> {
    let scratch = Scratch::new()?;
    let file = of_example(&scratch, "html")?;
    let mut browser = Browser::open(&scratch, &file, WINDOW)?;
    let heads = "[...document.querySelectorAll('#grid thead th')].map((head) => head.textContent)";
    let heads = browser.evaluate(heads)?;
    assert_eq!(heads.as_array().map(Vec::len), Some(6), "{heads}");
    let marked =
        "[...document.querySelectorAll('#grid button.federated')].map((button) => button.getAttribute('aria-label'))";
    assert_eq!(browser.evaluate(marked)?, json!(["example.io/* at web: app=catalog: GET, federated"]));
    browser.evaluate("document.querySelector('#grid button.federated').focus()")?;
    browser.press("Enter", 13)?;
    let opened = "document.querySelector('dialog[open]')?.innerText ?? ''";
    let text = browser.evaluate(opened)?.to_string();
    assert!(text.contains("example.io/* at web: app=catalog") && text.contains("/public/*"), "{text}");
    browser.screenshot(&screenshot("details.png")?)?;
    browser.press("Escape", 27)?;
    assert_eq!(browser.evaluate(opened)?, "");
    let focused = "document.activeElement.className";
    assert_eq!(browser.evaluate(focused)?, "federated", "the focus returns to the cell");
    assert_quiet(&browser, &file);
    Ok(())
}

#[test]
fn a_printed_page_has_every_row_and_no_control() -> Result<()> {
    let scratch = Scratch::new()?;
    let file = of_example(&scratch, "html")?;
    let mut browser = Browser::open(&scratch, &file, WINDOW)?;
    let all = browser.evaluate(ROWS)?;
    browser.set_medium("print", false)?;
    assert_eq!(browser.evaluate(ROWS)?, all);
    let visible = "[...document.querySelectorAll('input, select, button, #grid')].filter((part) => part.getClientRects().length).length";
    assert_eq!(browser.evaluate(visible)?, 0);
    let clipped = "[...document.querySelectorAll('section.workload')].filter((part) => part.scrollWidth > part.clientWidth + 1 || \
                   getComputedStyle(part).overflow !== 'visible').length";
    assert_eq!(browser.evaluate(clipped)?, 0);
    browser.screenshot(&screenshot("print.png")?)?;
    assert_quiet(&browser, &file);
    Ok(())
}

#[test]
fn hostile_values_are_text() -> Result<()> {
    let scratch = Scratch::new()?;
    let file = hostile(&scratch, "html")?;
    let mut browser = Browser::open(&scratch, &file, WINDOW)?;
    let elements = "document.querySelectorAll('img, b, iframe, link, object, script:not(body > script), [autofocus], [onfocus]').length";
    assert_eq!(browser.evaluate(elements)?, 0);
    assert_eq!(browser.evaluate("document.scripts.length")?, 1);
    let text = browser.evaluate("document.querySelector('section.workload').textContent")?;
    let text = text.as_str().context("no text")?;
    for value in
        ["/</script><img/src=x/onerror=bad()>", "</style><script>bad()</script>", "/\\u{202e}\"'&lt", "onfocus=bad()"]
    {
        assert!(text.contains(value), "{value} in {text}");
    }
    // The grid and the details have the values, too.
    browser.evaluate("document.querySelector('#grid button').click()")?;
    let title = browser.evaluate("document.querySelector('dialog h2').textContent")?;
    assert!(title.to_string().contains("<b>hostile"), "{title}");
    assert_eq!(browser.evaluate(elements)?, 0);
    browser.evaluate("document.querySelector('dialog').close()")?;
    let overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth";
    assert_eq!(browser.evaluate(overflow)?, 0, "a long value widens the page");
    browser.screenshot(&screenshot("hostile.png")?)?;
    assert_quiet(&browser, &file);
    // Markup in a value could not run or load anything.
    let injected = "new Promise((done) => {
        const violations = [];
        document.addEventListener('securitypolicyviolation', (event) => violations.push(event.effectiveDirective));
        window.bad = () => violations.push('ran');
        document.body.insertAdjacentHTML('beforeend', '<img src=\"https://example.org/x\" onerror=\"bad()\"><b onclick=\"bad()\"></b>');
        document.body.lastElementChild.click();
        setTimeout(() => done(violations.sort()), 200);
    })";
    let violations = browser.evaluate(injected)?;
    let violations = violations.as_array().context("no list")?;
    assert!(violations.contains(&json!("img-src")) && violations.contains(&json!("script-src-attr")), "{violations:?}");
    assert!(!violations.contains(&json!("ran")), "{violations:?}");
    Ok(())
}

#[test]
fn without_scripts_the_page_has_its_tables() -> Result<()> {
    let scratch = Scratch::new()?;
    let file = of_example(&scratch, "html")?;
    let page = fs::read_to_string(&file)?;
    let (before, after) = page.split_once("<script>").context("no script")?;
    let (_, after) = after.split_once("</script>").context("no script")?;
    let plain = scratch.write("plain.html", &format!("{before}{after}"))?;
    let mut browser = Browser::open(&scratch, &plain, WINDOW)?;
    let rows = browser.evaluate(ROWS)?;
    assert!(rows.as_array().is_some_and(|rows| rows.len() > 6), "{rows}");
    let controls =
        "[...document.querySelectorAll('form, #grid, #nothing')].filter((part) => part.getClientRects().length).length";
    assert_eq!(browser.evaluate(controls)?, 0);
    assert_quiet(&browser, &plain);
    Ok(())
}

#[test]
fn mermaid_draws_the_chart() -> Result<()> {
    for name in ["example", "hostile"] {
        let scratch = Scratch::new()?;
        let file = if name == "example" { of_example(&scratch, "mermaid")? } else { hostile(&scratch, "mermaid")? };
        let chart = fs::read_to_string(file)?;
        let page = scratch.write("mermaid.html", "<!doctype html><meta charset=utf-8><body></body>")?;
        let mut browser = Browser::open(&scratch, &page, WINDOW)?;
        browser.evaluate(&fs::read_to_string(tools::path(tools::MERMAID)?)?)?;
        let draw = format!(
            "mermaid.initialize({{startOnLoad: false, securityLevel: 'strict'}});
             mermaid.render('chart', {}).then(({{svg}}) => {{ document.body.innerHTML = svg; return document.body.textContent; }})",
            json!(chart)
        );
        let text = browser.evaluate(&draw)?;
        let text = text.as_str().with_context(|| format!("{name}: no chart"))?;
        let expected: &[&str] = match name {
            "example" => &["example.io/*", "(federated)", "web: app=catalog", "method GET, path /public/*"],
            _ => &["<b>hostile\".json", "/</script><img/src=x/onerror=bad()>"],
        };
        for value in expected {
            assert!(text.contains(value), "{name}: {value} in {text}");
        }
        assert_eq!(browser.evaluate("document.querySelectorAll('img, b, script').length")?, 0, "{name}");
        browser.screenshot(&screenshot(&format!("mermaid-{name}.png"))?)?;
    }
    Ok(())
}

#[test]
fn a_page_of_connections_works_without_methods() -> Result<()> {
    let scratch = Scratch::new()?;
    scratch.write("tcp.json", r#"{"trustDomain": "example.org", "policies": [{"name": "a", "rules": [{}]}]}"#)?;
    let file = matrix(&scratch, "html", &["--layer=tcp", "tcp.json"])?;
    let mut browser = Browser::open(&scratch, &file, WINDOW)?;
    assert_eq!(browser.evaluate("document.querySelector('#grid button').textContent")?, "1 permission");
    assert_eq!(browser.evaluate(&filtered("kind", "federated"))?, json!([]));
    assert_eq!(browser.evaluate("document.getElementById('method')")?, Value::Null);
    assert_quiet(&browser, &file);
    Ok(())
}
