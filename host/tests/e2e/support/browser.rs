//! A real browser, Debian's Chromium, driven over its DevTools protocol: one for all tests, with a
//! context of its own (cookies, storage) for each page. Its two pipes are files that a shell opens for
//! it; it ends when they close, so with the tests.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Mutex, OnceLock,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::PATIENCE;

/// Answers and events of one session, as they come.
type Inbox = mpsc::Sender<Value>;

struct Browser {
    requests: Mutex<File>,
    numbers: AtomicU64,
    /// By session; what belongs to none is under the empty name.
    inboxes: Mutex<HashMap<String, Inbox>>,
    /// For what belongs to the browser as a whole.
    own: Mutex<mpsc::Receiver<Value>>,
    /// Waits for the browser's end, and removes what it leaves.
    _shell: Child,
}

/// A page in a context of its own.
pub(crate) struct Page {
    session: String,
    inbox: mpsc::Receiver<Value>,
    seen: Vec<Value>,
}

fn browser() -> &'static Browser {
    static BROWSER: OnceLock<&'static Browser> = OnceLock::new();
    BROWSER.get_or_init(start)
}

/// Starts the browser, which reads requests from its descriptor 3 and answers on 4.
fn start() -> &'static Browser {
    let directory = tempfile::tempdir().unwrap().keep();
    let (to, from) = (directory.join("to"), directory.join("from"));
    let made = Command::new("mkfifo").args([&to, &from]).status().unwrap();
    assert!(made.success());
    let script = r#""$@" 3<"$0/to" 4>"$0/from"; rm -rf "$0""#;
    let shell = Command::new("sh")
        .args(["-c", script])
        .arg(&directory)
        .args([
            "chromium",
            "--headless",
            "--remote-debugging-pipe",
            // Tests run as root in CI, where it cannot have one.
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-extensions",
            "--disable-sync",
            "--no-first-run",
            "--hide-scrollbars",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        ])
        .arg(format!("--user-data-dir={}", directory.display()))
        .arg("about:blank")
        .env("HOME", &directory)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("there is a shell");
    let requests = File::options().write(true).open(&to).unwrap();
    let answers = BufReader::new(File::open(&from).unwrap());
    let (sender, own) = mpsc::channel();
    let browser = Box::leak(Box::new(Browser {
        requests: Mutex::new(requests),
        numbers: AtomicU64::new(1),
        inboxes: Mutex::new(HashMap::from([(String::new(), sender)])),
        own: Mutex::new(own),
        _shell: shell,
    }));
    let of = &*browser;
    thread::spawn(move || of.deliver(answers));
    browser
}

impl Browser {
    fn deliver(&self, mut answers: BufReader<File>) {
        let mut message = Vec::new();
        while answers
            .read_until(0, &mut message)
            .is_ok_and(|read| read > 0)
        {
            let text = message.strip_suffix(b"\0").unwrap_or(&message);
            let value: Value = serde_json::from_slice(text).unwrap();
            let session = value["sessionId"].as_str().unwrap_or_default();
            if let Some(inbox) = self.inboxes.lock().unwrap().get(session) {
                // A page that has gone hears nothing more.
                let _ = inbox.send(value.clone());
            }
            message.clear();
        }
    }

    fn send(&self, session: &str, method: &str, params: Value) -> u64 {
        let id = self.numbers.fetch_add(1, Ordering::Relaxed);
        let mut request = json!({ "id": id, "method": method, "params": params });
        if !session.is_empty() {
            request["sessionId"] = json!(session);
        }
        let mut text = request.to_string().into_bytes();
        text.push(0);
        self.requests.lock().unwrap().write_all(&text).unwrap();
        id
    }

    /// Asks something of the browser as a whole.
    fn ask(&self, method: &str, params: Value) -> Value {
        let own = self.own.lock().unwrap();
        let id = self.send("", method, params);
        loop {
            let answer = own.recv_timeout(PATIENCE).expect("the browser answers");
            if answer["id"] == id {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].clone();
            }
        }
    }
}

impl Page {
    /// An empty page that tells of all that it asks for and complains about.
    pub(crate) fn new() -> Self {
        let browser = browser();
        let context = browser.ask("Target.createBrowserContext", json!({}));
        let target = browser.ask(
            "Target.createTarget",
            json!({ "url": "about:blank", "browserContextId": context["browserContextId"] }),
        );
        let attached = browser.ask(
            "Target.attachToTarget",
            json!({ "targetId": target["targetId"], "flatten": true }),
        );
        let session = attached["sessionId"].as_str().unwrap().to_owned();
        let (sender, inbox) = mpsc::channel();
        let mut inboxes = browser.inboxes.lock().unwrap();
        inboxes.insert(session.clone(), sender);
        drop(inboxes);
        let mut page = Self {
            session,
            inbox,
            seen: Vec::new(),
        };
        for domain in ["Page", "Runtime", "Log", "Network"] {
            page.ask(&format!("{domain}.enable"), json!({}));
        }
        page.resize(1280, 900);
        page
    }

    /// Asks something of the page.
    fn ask(&mut self, method: &str, params: Value) -> Value {
        let id = browser().send(&self.session, method, params);
        loop {
            let answer = self.inbox.recv_timeout(PATIENCE);
            let answer = answer.unwrap_or_else(|_| panic!("{method}: no answer"));
            if answer["id"] == id {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].clone();
            }
            self.seen.push(answer);
        }
    }

    /// Goes somewhere.
    pub(crate) fn open(&mut self, url: &str) {
        self.ask("Page.navigate", json!({ "url": url }));
    }

    /// What an expression is in the page; a promise is waited for.
    pub(crate) fn eval(&mut self, expression: &str) -> Value {
        let answer = self.ask(
            "Runtime.evaluate",
            json!({ "expression": expression, "returnByValue": true, "awaitPromise": true }),
        );
        let thrown = &answer["exceptionDetails"];
        assert!(thrown.is_null(), "{expression}: {thrown}");
        answer["result"]["value"].clone()
    }

    /// Waits until an expression is true.
    pub(crate) fn until(&mut self, expression: &str) {
        // A navigation that is under way ends what is being looked at.
        let whole =
            format!("(() => {{ try {{ return !!({expression}); }} catch {{ return false; }} }})()");
        let deadline = Instant::now() + PATIENCE;
        while self.eval(&whole) != json!(true) {
            if Instant::now() > deadline {
                panic!(
                    "{expression} has not come about; the page:\n{}",
                    self.text()
                );
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until the page shows a text.
    pub(crate) fn until_shown(&mut self, text: &str) {
        self.until(&format!(
            "document.body.innerText.includes({})",
            json!(text)
        ));
    }

    /// What a reader sees.
    pub(crate) fn text(&mut self) -> String {
        let text = self.eval("document.body ? document.body.innerText : ''");
        text.as_str().unwrap_or_default().to_owned()
    }

    /// Clicks with the mouse, in the middle of the first element that a selector finds.
    pub(crate) fn click(&mut self, selector: &str) {
        self.until(&format!("document.querySelector({})", json!(selector)));
        self.click_on(&format!("document.querySelector({})", json!(selector)));
    }

    /// Clicks on the last button that has this text.
    pub(crate) fn press(&mut self, text: &str) {
        let buttons = format!(
            "[...document.querySelectorAll('button')].filter((it) => it.textContent === {})",
            json!(text)
        );
        self.until(&format!("{buttons}.length > 0"));
        self.click_on(&format!("{buttons}.at(-1)"));
    }

    fn click_on(&mut self, element: &str) {
        let at = self.eval(&format!(
            "(() => {{ const it = {element}; it.scrollIntoView({{ block: 'center' }}); \
             const box = it.getBoundingClientRect(); \
             return [box.x + box.width / 2, box.y + box.height / 2]; }})()"
        ));
        for kind in ["mousePressed", "mouseReleased"] {
            self.ask(
                "Input.dispatchMouseEvent",
                json!({ "type": kind, "x": at[0], "y": at[1], "button": "left", "clickCount": 1 }),
            );
        }
    }

    /// Types into whatever has the focus.
    pub(crate) fn type_text(&mut self, text: &str) {
        self.ask("Input.insertText", json!({ "text": text }));
    }

    /// Presses a key: `Tab`, `Enter`, `Escape` or ` `.
    pub(crate) fn key(&mut self, key: &str) {
        let (code, number, text) = match key {
            "Tab" => ("Tab", 9, None),
            "Enter" => ("Enter", 13, Some("\r")),
            "Escape" => ("Escape", 27, None),
            " " => ("Space", 32, Some(" ")),
            other => panic!("no such key: {other}"),
        };
        for kind in ["keyDown", "keyUp"] {
            let mut event =
                json!({ "type": kind, "key": key, "code": code, "windowsVirtualKeyCode": number });
            if let (Some(text), "keyDown") = (text, kind) {
                event["text"] = json!(text);
            }
            self.ask("Input.dispatchKeyEvent", event);
        }
    }

    /// Presses Tab until an expression about the focused element `it` is true.
    pub(crate) fn tab_to(&mut self, expression: &str) {
        for _ in 0..60 {
            self.key("Tab");
            let is_there = format!("((it) => !!({expression}))(document.activeElement)");
            if self.eval(&is_there) == json!(true) {
                return;
            }
        }
        panic!("no way by Tab to {expression}: {}", self.text());
    }

    /// Gives the window a size.
    pub(crate) fn resize(&mut self, width: u32, height: u32) {
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false }),
        );
    }

    /// Has the page drawn light or dark.
    pub(crate) fn scheme(&mut self, scheme: &str) {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.ask(
            "Emulation.setEmulatedMedia",
            json!({ "features": features }),
        );
    }

    /// Draws the whole page into a file of this directory, for people to look at.
    pub(crate) fn draw(&mut self, directory: &Path, name: &str) {
        let drawn = self.ask(
            "Page.captureScreenshot",
            json!({ "format": "png", "captureBeyondViewport": true }),
        );
        fs::create_dir_all(directory).unwrap();
        let bytes = base64(drawn["data"].as_str().unwrap());
        fs::write(directory.join(format!("{name}.png")), bytes).unwrap();
    }

    /// Every address that the page has asked for.
    pub(crate) fn requests(&mut self) -> Vec<String> {
        self.told("Network.requestWillBeSent", |event| {
            event["request"]["url"].as_str().unwrap().to_owned()
        })
    }

    /// What the browser complains about: breaches of the policy, errors and warnings of the page's
    /// scripts. Answers that refuse something are none.
    pub(crate) fn complaints(&mut self) -> Vec<String> {
        let mut complaints = self.told("Runtime.exceptionThrown", Value::clone);
        complaints.extend(self.told("Runtime.consoleAPICalled", Value::clone));
        complaints.extend(self.told("Log.entryAdded", |event| event["entry"].clone()));
        complaints.retain(|complaint| {
            let level = complaint["level"].as_str().unwrap_or("error");
            complaint["source"] != "network" && ["error", "warning"].contains(&level)
        });
        complaints.iter().map(Value::to_string).collect()
    }

    fn told<T>(&mut self, method: &str, of: impl Fn(&Value) -> T) -> Vec<T> {
        self.seen.extend(self.inbox.try_iter());
        let events = self.seen.iter().filter(|event| event["method"] == method);
        events.map(|event| of(&event["params"])).collect()
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        browser().send(&self.session, "Page.close", json!({}));
        browser().inboxes.lock().unwrap().remove(&self.session);
    }
}

/// Bytes of a text in base 64, which the protocol has drawings in.
fn base64(text: &str) -> Vec<u8> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => u32::from(byte - b'A'),
        b'a'..=b'z' => u32::from(byte - b'a') + 26,
        b'0'..=b'9' => u32::from(byte - b'0') + 52,
        b'+' => 62,
        _ => 63,
    };
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    for four in text.trim_end_matches('=').as_bytes().chunks(4) {
        let all =
            four.iter().fold(0, |all, byte| all << 6 | digit(*byte)) << (6 * (4 - four.len()));
        bytes.extend_from_slice(&all.to_be_bytes()[1..four.len()]);
    }
    bytes
}
