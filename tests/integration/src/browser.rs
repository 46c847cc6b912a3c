//! Chromium without a window, which a test controls through pipes (Chrome DevTools Protocol).

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::scratch::Scratch;
use crate::tools;

const LIMIT: Duration = Duration::from_secs(60);

/// A browser with one page.
#[derive(Debug)]
pub struct Browser {
    child: Child,
    input: ChildStdin,
    messages: Receiver<Value>,
    session: Option<String>,
    sent: u64,
    /// The events of the page.
    events: Vec<Value>,
}

impl Browser {
    /// Starts Chromium with a file as its page, in a window of this width and height.
    ///
    /// # Errors
    /// Returns an error if the browser does not start or does not show the page.
    pub fn open(scratch: &Scratch, file: &Path, [width, height]: [u32; 2]) -> Result<Self> {
        let program = tools::path(tools::CHROMIUM)?;
        let directory = program.parent().context("the program has no directory")?;
        // Chromium reads commands from descriptor 3, and writes results to descriptor 4.
        let mut command = Command::new("bash");
        command.args(["-c", "exec \"$0\" \"$@\" 3<&0 4>&1 1>&2"]).arg(&program);
        command.args(["--headless=shell", "--remote-debugging-pipe", "--no-sandbox", "--no-zygote"]);
        command.args(["--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"]);
        command.arg(format!("--user-data-dir={}", scratch.join("browser").display()));
        command.env("LD_LIBRARY_PATH", directory.join("lib")).env("FONTCONFIG_FILE", directory.join("fonts.conf"));
        command.env("HOME", scratch.path()).env("XDG_CACHE_HOME", scratch.path());
        command.stderr(File::create(scratch.join("browser.err"))?);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("bash: cannot start")?;
        let input = child.stdin.take().context("no input to write")?;
        let mut output = BufReader::new(child.stdout.take().context("no output to read")?);
        let (sender, messages) = mpsc::channel();
        thread::spawn(move || {
            let mut message = Vec::new();
            while output.read_until(0, &mut message).is_ok_and(|length| length > 0) {
                let value = serde_json::from_slice(message.strip_suffix(&[0]).unwrap_or(&message));
                if value.is_ok_and(|value| sender.send(value).is_err()) {
                    return;
                }
                message.clear();
            }
        });
        let mut browser = Self { child, input, messages, session: None, sent: 0, events: Vec::new() };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"}))?;
        let attached =
            browser.call("Target.attachToTarget", json!({"targetId": target["targetId"], "flatten": true}))?;
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Network", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({}))?;
        }
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        browser.call("Emulation.setDeviceMetricsOverride", size)?;
        browser.call("Page.navigate", json!({"url": format!("file://{}", file.display())}))?;
        while !browser.events.iter().any(|event| event["method"] == "Page.loadEventFired") {
            browser.receive()?;
        }
        Ok(browser)
    }

    fn receive(&mut self) -> Result<Option<Value>> {
        let message = self.messages.recv_timeout(LIMIT).context("the browser does not answer")?;
        if message.get("id").is_some() {
            return Ok(Some(message));
        }
        self.events.push(message);
        Ok(None)
    }

    fn call(&mut self, method: &str, parameters: Value) -> Result<Value> {
        self.sent += 1;
        let mut message = json!({"id": self.sent, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        self.input.write_all(format!("{message}\0").as_bytes())?;
        loop {
            let Some(answer) = self.receive()? else { continue };
            if answer["id"] != self.sent {
                continue;
            }
            if let Some(error) = answer.get("error") {
                bail!("{method}: {error}");
            }
            return Ok(answer["result"].clone());
        }
    }

    /// Returns the value of an expression, or of its promise.
    ///
    /// # Errors
    /// Returns an error if the expression throws.
    pub fn evaluate(&mut self, expression: &str) -> Result<Value> {
        let parameters = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let answer = self.call("Runtime.evaluate", parameters)?;
        if let Some(exception) = answer.get("exceptionDetails") {
            bail!("{expression}: {exception}");
        }
        Ok(answer["result"]["value"].clone())
    }

    /// Sets the medium, such as `print`, and whether the user prefers dark colors.
    ///
    /// # Errors
    /// Returns an error if the browser does not answer.
    pub fn set_medium(&mut self, medium: &str, is_dark: bool) -> Result<()> {
        let scheme = if is_dark { "dark" } else { "light" };
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.call("Emulation.setEmulatedMedia", json!({"media": medium, "features": features})).map(|_| ())
    }

    /// Presses a key, such as `Enter`.
    ///
    /// # Errors
    /// Returns an error if the browser does not answer.
    pub fn press(&mut self, key: &str, code: u32) -> Result<()> {
        for kind in ["keyDown", "keyUp"] {
            let text = if key == "Enter" && kind == "keyDown" { "\r" } else { "" };
            let event = json!({"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, "text": text});
            self.call("Input.dispatchKeyEvent", event)?;
        }
        Ok(())
    }

    /// Writes what the window shows to a PNG file.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub fn screenshot(&mut self, file: &Path) -> Result<()> {
        let answer = self.call("Page.captureScreenshot", json!({"format": "png"}))?;
        let image = answer["data"].as_str().context("the browser sent no image")?;
        fs::write(file, STANDARD.decode(image)?).with_context(|| format!("{}: cannot write the file", file.display()))
    }

    /// Returns the events of this kind so far, such as `Network.requestWillBeSent`.
    pub fn events(&self, method: &str) -> impl Iterator<Item = &Value> {
        self.events.iter().filter(move |event| event["method"] == method).map(|event| &event["params"])
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // There is no remedy if the browser has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
