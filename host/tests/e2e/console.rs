//! The console in a real browser, on a real host.
//!
//! What a page asks for and what the browser complains about is looked at at the end of every test: no
//! other host may be asked, and nothing may break the page's policy.

use std::{env, fs};

use serde_json::{Value, json};

use crate::support::{
    Host,
    asking::get,
    browser::Page,
    get as call,
    guarded::{Guarded, TOKEN, guarded, guarded_with},
    response,
    serving::{answer, answer_of, serving_from, until_closed, word},
    versions::{named, version},
    wait_for,
};

/// What has to hold of every page, whatever was done in it.
fn expect_good_manners(mut page: Page, guarded: &Guarded) {
    let own = format!("http://{}/", guarded.address);
    let foreign: Vec<String> = page
        .requests()
        .into_iter()
        .filter(|url| !url.starts_with(&own) && url != "about:blank")
        .collect();
    assert!(foreign.is_empty(), "{foreign:?}");
    assert_eq!(page.complaints(), Vec::<String>::new());
}

/// A host with `versioned` 0.1.0 and a route to it.
fn serving(guarded: &Guarded) -> (crate::support::Gateway, u32) {
    version("0.1.0").swap_in(&guarded.host.plugins().join("versioned"));
    serving_from(&guarded.host)
}

#[test]
fn the_page_is_served_with_a_policy_that_lets_nothing_else_run_and_only_where_tokens_are_asked_for()
{
    let guarded = guarded();
    for (path, media_type) in [
        ("/", "text/html; charset=utf-8"),
        ("/console/style.css", "text/css; charset=utf-8"),
        ("/console/main.js", "text/javascript; charset=utf-8"),
        ("/console/icon.svg", "image/svg+xml"),
    ] {
        let reply = get(path).at(guarded.address);
        assert_eq!(reply.status, 200);
        assert_eq!(reply.header("content-type"), Some(media_type));
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(reply.header("x-frame-options"), Some("DENY"));
        assert_eq!(reply.header("referrer-policy"), Some("no-referrer"));
        let policy = reply.header("content-security-policy").unwrap();
        for part in [
            "default-src 'none'",
            "script-src 'self'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
        ] {
            assert!(policy.contains(part), "{policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        let foreign = get(path).header("Host", "evil.example");
        foreign.at(guarded.address).problem(403);
    }
    get("/console/other.js").at(guarded.address).problem(401);
    get("/").of(&guarded.host).problem(404);
}

#[test]
fn an_operator_signs_in_sees_an_upgrade_happen_and_rolls_it_back_after_a_question() {
    let guarded = guarded();
    let (mut gateway, token) = serving(&guarded);
    let mut page = guarded.door();
    page.type_text("wrong-horse-battery-staple");
    page.key("Enter");
    page.until_shown("the token is not the one in --control-token-file");
    page.type_text(TOKEN);
    page.key("Enter");
    page.until_shown("1 of 1");
    let row = "document.querySelector('#plugins tbody tr').innerText";
    page.until(&format!(
        "{row}.includes('versioned') && {row}.includes('0.1.0')"
    ));
    page.until(&format!("{row}.includes('serving')"));
    // Signed in also after the page has been loaded anew; no script can see the cookie.
    page.open(&format!("http://{}/#/", guarded.address));
    page.until_shown("1 of 1");
    assert_eq!(page.eval("document.cookie"), "");

    version("0.2.0").swap_in(&guarded.host.plugins().join("versioned"));
    page.until(&format!("{row}.includes('0.2.0')"));
    page.click("#plugins tbody a");
    page.until_shown("Upgrade history");
    page.until_shown("Version 0.2.0");
    page.until_shown("route#1#pre#1");

    // Thought better of.
    page.press("Roll back to 0.1.0");
    page.until("document.querySelector('dialog[open]')");
    page.press("Cancel");
    page.until("!document.querySelector('dialog')");
    assert_eq!(answer(&mut gateway, token), answer_of("0.2.0", "hello"));
    page.press("Roll back to 0.1.0");
    page.until("document.querySelector('dialog[open]')");
    page.press("Roll back");
    page.until_shown("versioned 0.1.0 serves now.");
    page.until_shown("Version 0.1.0");
    assert_eq!(answer(&mut gateway, token), answer_of("0.1.0", "hello"));
    guarded
        .host
        .log_line(&["an operator's action", "(signed in)", "rollback"]);

    page.press("Sign out");
    page.until("document.activeElement.id === 'token'");
    assert_eq!(
        page.eval("fetch('/v1/status').then((it) => it.status)"),
        401
    );
    expect_good_manners(page, &guarded);
}

#[test]
fn with_keys_alone_an_operator_signs_in_finds_a_plugin_and_disables_it() {
    let guarded = guarded();
    let (mut gateway, token) = serving(&guarded);
    let mut page = guarded.console();
    page.until_shown("1 of 1");
    page.tab_to("it.textContent === 'versioned'");
    // Numbers come each second and the status now and then: the focus stays where it is.
    named("unrelated", "0.1.0").swap_in(&guarded.host.plugins().join("unrelated"));
    page.until_shown("2 of 2");
    assert_eq!(page.eval("document.activeElement.textContent"), "versioned");
    let outline = page.eval("getComputedStyle(document.activeElement).outlineStyle");
    assert_eq!(outline, "solid", "the focus is seen");
    page.key("Enter");
    page.until_shown("Upgrade history");
    assert_eq!(page.eval("document.activeElement.id"), "main");
    page.tab_to("it.textContent === 'Disable'");
    page.key("Enter");
    page.until("document.activeElement.textContent === 'Cancel'");
    page.key("Escape");
    page.until(
        "!document.querySelector('dialog') && document.activeElement.textContent === 'Disable'",
    );
    page.key(" ");
    page.until("document.activeElement.textContent === 'Cancel'");
    page.key("Tab");
    assert_eq!(page.eval("document.activeElement.textContent"), "Disable");
    page.key("Enter");
    page.until_shown("versioned is disabled: its routes fail closed.");
    let notice = page.eval("document.getElementById('notice').getAttribute('aria-live')");
    assert_eq!(notice, "polite", "and it is read out");
    page.until_shown("disabled");
    until_closed(&mut gateway, token);
    expect_good_manners(page, &guarded);
}

#[test]
fn a_request_is_tried_on_a_live_chain_and_each_plugins_effect_is_shown() {
    let guarded = guarded_with(Host::builder().plugin("say").plugin("limit-req"));
    let (mut gateway, _) = serving(&guarded);
    let chain = [
        ("versioned", json!({ "word": "w", "pass": true })),
        ("say", json!({ "body": "<b>hello</b>" })),
        ("limit-req", json!({ "rate": 1 })),
    ];
    let token = gateway.prepare("route#2#ext-plugin-pre-req#1", chain);
    let mut page = guarded.console();
    page.click("a[href='#/routes']");
    page.click(&format!("a[href='#/try?token={token}']"));
    page.until(&format!(
        "document.getElementById('chain').value === '{token}'"
    ));
    page.click("#path");
    page.type_text("orders");
    page.click("#headers");
    page.type_text("X-User: me");
    page.click("#send");
    page.until_shown("What the gateway does");
    let steps =
        page.eval("[...document.querySelectorAll('.steps > li')].map((it) => it.innerText)");
    let step = |index: usize| steps[index].as_str().unwrap().to_owned();
    assert!(step(0).contains("changed") && step(0).contains("set header x-version: 0.1.0"));
    assert!(step(1).contains("stopped") && step(1).contains("body of 12 bytes"));
    assert!(step(2).contains("not reached"));
    page.until_shown("<b>hello</b>");
    // One's own plugins, and a configuration that is none.
    page.eval("document.getElementById('chain').value = 'own'");
    page.eval("document.getElementById('chain').dispatchEvent(new Event('change'))");
    page.eval("document.getElementById('plugin-1').value = 'limit-req'");
    page.click("#send");
    page.until_shown("the chain cannot run");
    page.until("document.querySelector('.steps').innerText.includes('refused')");
    page.eval("document.getElementById('headers').value = 'nonsense'");
    page.click("#send");
    page.until_shown("write `name: value`");
    expect_good_manners(page, &guarded);
}

const EVIL: &str = "<img src=x onerror=window.evil=1><script>window.evil=2</script>";

#[test]
fn hostile_names_errors_and_texts_of_plugins_stay_text() {
    let guarded = guarded();
    let (mut gateway, token) = serving(&guarded);
    let plugins = guarded.host.plugins();
    // A place, a description, a home page, a schema, an error, a key, a name in a route, a header.
    let mut evil = version("0.2.0");
    evil.metadata["description"] = json!(EVIL);
    evil.metadata["home"] = json!("javascript:window.evil=3");
    evil.metadata["config_schema"] = json!({ "title": EVIL });
    evil.swap_in(&plugins.join("versioned"));
    guarded.host.log_line(&["plugin loaded", "0.2.0"]);
    version("0.3.0")
        .settings(json!({ "load": EVIL }))
        .swap_in(&plugins.join("versioned"));
    guarded.host.log_line(&["ERROR", "no such misdeed"]);
    fs::create_dir(plugins.join("<img src=x onerror=window.evil=4>")).unwrap();
    fs::write(
        plugins.join("<img src=x onerror=window.evil=4>/plugin.json"),
        "[]",
    )
    .unwrap();
    gateway.prepare(&format!("{EVIL}#1"), [(EVIL, "")]);
    gateway.prepare("route#9#pre#1", [("versioned", word(EVIL))]);
    gateway.call(token, call("/"));
    let mut page = guarded.console();
    page.until_shown("Needs attention");
    page.until_shown(EVIL);
    for view in [
        "plugin/versioned",
        "routes",
        "log",
        "settings",
        "host",
        "try",
    ] {
        page.eval(&format!("location.hash = '#/{view}'"));
        page.until("document.querySelector('main h1')");
        if ["plugin/versioned", "routes", "log"].contains(&view) {
            page.until_shown("<img src=x onerror=window.evil=");
        }
    }
    page.until(&format!(
        "[...document.getElementById('chain').options].some((it) => it.value === '{token}')"
    ));
    page.eval(&format!(
        "document.getElementById('headers').value = 'x-nonce: ' + {}",
        json!(EVIL)
    ));
    page.eval(&format!(
        "document.getElementById('chain').value = '{token}'"
    ));
    page.click("#send");
    page.until_shown("What the gateway does");
    page.until_shown(EVIL);
    page.eval(
        "location.hash = '#/plugin/' + encodeURIComponent('<img src=x onerror=window.evil=5>')",
    );
    page.until_shown("No place of the plugin directory has ever given such a plugin.");
    page.eval("location.hash = '#/plugin/%'");
    page.until_shown("No place of the plugin directory");
    assert_eq!(page.eval("window.evil ?? null"), Value::Null);
    assert_eq!(
        page.eval("document.querySelectorAll('img, main script').length"),
        0
    );
    let outward = "document.querySelectorAll('a:not([href^=\"#\"])').length";
    assert_eq!(page.eval(outward), 0, "no link leads out of the page");
    expect_good_manners(page, &guarded);
}

#[test]
fn where_the_host_goes_away_the_page_says_so_and_asks_for_the_token_of_the_next() {
    let mut guarded = guarded();
    let mut page = guarded.console();
    page.click("a[href='#/host']");
    page.press("Drain");
    page.until("document.querySelector('dialog[open]')");
    page.press("End the host");
    guarded.host.end();
    page.until_shown("No connection, trying again");
    // Sessions end with the host.
    guarded.host = Host::builder()
        .flag("--control-listen", &guarded.address.to_string())
        .flag("--control-token-file", guarded.file.to_str().unwrap())
        .plugin("say")
        .start();
    page.until("document.activeElement.id === 'token'");
    page.type_text(TOKEN);
    page.key("Enter");
    page.until_shown("Ready");
    page.click("#nav a");
    page.until_shown("1 of 1");
    expect_good_manners(page, &guarded);
}

/// Wider than its window: elements that nobody can read without scrolling sideways.
const OVERFLOW: &str =
    "document.documentElement.scrollWidth - document.documentElement.clientWidth";

/// Texts whose contrast with what is behind them is below what the accessibility guidelines ask for.
const FAINT: &str = r#"(() => {
  const parse = (colour) => colour.match(/[\d.]+/g).map(Number);
  const light = ([r, g, b]) => {
    const part = (value) => { value /= 255; return value <= .03928 ? value / 12.92 : ((value + .055) / 1.055) ** 2.4; };
    return .2126 * part(r) + .7152 * part(g) + .0722 * part(b);
  };
  const behind = (element) => {
    for (let it = element; it; it = it.parentElement) {
      const colour = parse(getComputedStyle(it).backgroundColor);
      if (colour.length < 4 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const element of document.querySelectorAll('body *')) {
    const has_text = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!has_text || !element.checkVisibility() || element.disabled) continue;
    const [one, other] = [light(parse(getComputedStyle(element).color)), light(behind(element))];
    const contrast = (Math.max(one, other) + .05) / (Math.min(one, other) + .05);
    if (contrast < 4.5) found.push(`${element.tagName}.${element.className} ${contrast.toFixed(1)}: ${element.textContent.slice(0, 40)}`);
  }
  return found;
})()"#;

/// Form fields and buttons that have no name for those who do not see them.
const NAMELESS: &str = "[...document.querySelectorAll('input, select, textarea, button')].filter((it) => \
    it.checkVisibility() && !it.labels?.length && !it.getAttribute('aria-label') && !it.textContent.trim()).map((it) => it.outerHTML)";

/// Where drawings of all views go, for people to look at: only where this variable names a directory.
/// Then there are 50 plugins in them.
const DRAWINGS: &str = "PLUGIN_HOST_TEST_DRAWINGS";

/// Expects that a view can be read wide and narrow, light and dark.
fn look(page: &mut Page, name: &str) {
    for (width, height, size) in [(1280, 900, "wide"), (390, 844, "narrow")] {
        page.resize(width, height);
        for scheme in ["light", "dark"] {
            page.scheme(scheme);
            page.eval("scrollTo(0, 0)");
            let name = format!("{name}-{size}-{scheme}");
            if let Some(directory) = env::var_os(DRAWINGS) {
                page.draw(directory.as_ref(), &name);
            }
            assert_eq!(page.eval(OVERFLOW), 0, "too wide: {name}");
            assert_eq!(page.eval(FAINT), json!([]), "{name}");
        }
    }
    assert_eq!(page.eval(NAMELESS), json!([]), "{name}");
    page.resize(1280, 900);
}

#[test]
fn every_view_can_be_read_wide_and_narrow_light_and_dark_empty_and_full() {
    let guarded = guarded();
    let host = &guarded.host;
    let mut page = guarded.door();
    look(&mut page, "sign-in");
    page.type_text(TOKEN);
    page.key("Enter");
    page.until_shown("No plugin yet");
    look(&mut page, "empty");

    let count = match env::var_os(DRAWINGS) {
        Some(_) => 50,
        None => 6,
    };
    for number in 1..count {
        let name = format!("plugin-{number:02}");
        named(&name, "1.0.0").swap_in(&host.plugins().join(&name));
    }
    version("0.1.0")
        .http_routes(&["/version", "/greet/:name"])
        .swap_in(&host.plugins().join("versioned"));
    wait_for("all serve", || {
        (get("/v1/plugins")
            .of(host)
            .body
            .matches(r#""state":"serving""#)
            .count()
            == count)
            .then_some(())
    });
    let mut gateway = host.gateway();
    let tokens: Vec<u32> = (0..count)
        .map(|number| {
            let name = match number {
                0 => "versioned".to_owned(),
                number => format!("plugin-{number:02}"),
            };
            let key = format!("route#{number}#ext-plugin-pre-req#12{number}");
            gateway.prepare(&key, [(name.as_str(), word("hello"))])
        })
        .collect();
    let mut calls = |times: usize| {
        for (number, token) in tokens.iter().enumerate() {
            for _ in 0..times * (number % 7 + 1) {
                gateway.call(*token, call("/"));
            }
        }
    };
    page.until(&format!(
        "document.querySelectorAll('#plugins .badge.good').length === {count}"
    ));
    for times in 1..4 {
        calls(times);
        page.until(&format!(
            "document.querySelectorAll('.spark.calls polyline[points*=\" \"]').length > {times}"
        ));
    }
    // How long calls took, which only events with numbers tell.
    page.until("/^[\\d.]+ (µs|ms|s)$/.test(document.querySelector('#plugins .spark.latency + .value').textContent)");
    look(&mut page, "full");

    // With failures of every kind.
    version("0.2.0").swap_in(&host.plugins().join("versioned"));
    host.log_line(&["plugin loaded", "0.2.0"]);
    version("0.3.0")
        .settings(json!({ "load": "fail" }))
        .swap_in(&host.plugins().join("versioned"));
    host.log_line(&["ERROR", "0.3.0", "told to fail"]);
    fs::create_dir(host.plugins().join("broken")).unwrap();
    fs::write(host.plugins().join("broken/plugin.json"), "[]").unwrap();
    host.log_line(&["ERROR", "broken/plugin.json"]);
    let ask = crate::support::asking::post;
    assert_eq!(ask("/v1/plugins/plugin-03/disable").of(host).status, 200);
    assert_eq!(ask("/v1/plugins/plugin-04/quarantine").of(host).status, 200);
    let mut other = host.gateway();
    other.prepare("route#60#ext-plugin-pre-req#7", [("authentication", "{}")]);
    let asking = json!({ "word": "hello", "ask": "route_id", "pass": true });
    let responding = other.prepare("route#61#ext-plugin-post-resp#7", [("versioned", asking)]);
    other.call(responding, response(200));
    let dead = host.worker();
    host.signal_worker(rustix::process::Signal::KILL);
    wait_for("another worker serves", || {
        (host.worker() != dead).then_some(())
    });
    page.until_shown("authentication");
    page.until_shown("In quarantine");
    page.until_shown("Not a plugin");
    look(&mut page, "failures");
    for (view, shown) in [
        ("plugin/versioned", "Follow its log"),
        ("plugin/plugin-03", "Follow its log"),
        ("routes", "route#61"),
        ("try", "Chain"),
        ("host", "SIGKILL"),
        ("log", "an operator's action"),
        ("settings", "plugin_dir"),
    ] {
        page.eval(&format!("location.hash = '#/{view}'"));
        page.until_shown(shown);
        look(&mut page, &view.replace('/', "-"));
    }
    page.eval("location.hash = '#/try'");
    page.until(&format!(
        "document.getElementById('chain').options.length > {count}"
    ));
    page.click("#send");
    page.until_shown("What the gateway does");
    look(&mut page, "tried");
    page.eval("location.hash = '#/plugin/versioned'");
    page.until_shown("Follow its log");
    page.press("Quarantine");
    page.until("document.querySelector('dialog[open]')");
    look(&mut page, "dialog");
    expect_good_manners(page, &guarded);
}
