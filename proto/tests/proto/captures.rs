//! Every recorded frame reads as what was sent.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::BTreeSet;

use crate::capture::{Capture, first_frame};
use crate::message::{Bytes, Message, Side};

/// Reads all frames of a recording and compares them, one line each.
fn check(name: &str, expected: &str) {
    let mut found = String::new();
    for frame in Capture::load(name).frames {
        let sender = match frame.from {
            Side::Gateway => "gateway",
            Side::Runner => "runner",
        };
        let read = |bytes: plugin_proto::Frame<'_>| {
            assert_eq!(
                bytes.data().as_ptr().addr() % 4,
                0,
                "{name}: the data is aligned"
            );
            Message::read(frame.from, bytes.frame_type().unwrap(), bytes.data()).unwrap()
        };
        let message = first_frame(&frame.bytes(), read).unwrap();
        found += &format!("{sender}: {message}\n");
    }
    // The first line of an expectation is the line break after its opening quote.
    assert_eq!(found, expected[1..], "{name}");
}

/// The recordings and their frames, one line each. `name` without `=` is an entry without a value.
const EXPECTED: &[(&str, &str)] = &[
    (
        "after-proxy-rewrite",
        r#"
gateway: prepare [stub='{"req": {"action": "rewrite", "headers": [["X-New", "1"]]}}'] as 'route#3#ext-plugin-post-req#1795197277'
runner: token 4
gateway: request 4 of 127.0.0.1 with token 4: GET '/rewritten' args [q='1', z='9'] headers [x-forwarded-port='9080', x-pr='1', host='gw.example', x-forwarded-host='gw.example', x-forwarded-proto='http', connection='close']
runner: 0 rewrite path none headers [X-New='1'] args [] response headers [] body none
"#,
    ),
    (
        "ask-large-body",
        r#"
gateway: prepare [stub='{"req": {"ask": [["reqbody"]]}}'] as 'route#6#ext-plugin-pre-req#1795197277'
runner: token 2
gateway: request 2 of 127.0.0.1 with token 2: POST '/p/askbody' args [a='1'] headers [x-forwarded-port='9080', x-forwarded-host='gw.example', host='gw.example', content-length='300000', x-forwarded-proto='http', connection='close']
runner: ask for the request body
gateway: info 300000 bytes like '\x00\x01\x02\x03\x04\x05\x06\x07'
runner: 0 unchanged
"#,
    ),
    (
        "ask-many",
        r#"
gateway: prepare [stub='{"req": {"ask": [["var", "remote_addr"], ["var", "nosuch"], ["var", "arg_x"], ["var", "request_id"], ["var", "uri"], ["var", "request_body"], ["var", "http_x_a"], ["var", "host"], ["var", "consumer_name"], ["var", "upstream_addr"], ["var", "bytes_sent"], ["reqbody"], ["respbody"]]}}'] as 'route#2#ext-plugin-pre-req#1795197277'
runner: token 1
gateway: request 0 of 127.0.0.1 with token 1: POST '/p/ask' args [x='', b='2', a='1'] headers [x-forwarded-port='9080', x-forwarded-host='gw.example', x-a='hi', host='gw.example', content-length='16', x-forwarded-proto='http', connection='close']
runner: ask 'remote_addr'
gateway: info '127.0.0.1'
runner: ask 'nosuch'
gateway: info none
runner: ask 'arg_x'
gateway: info ''
runner: ask 'request_id'
gateway: info '56c31009fdb6c3b9056f60f58f5cff73'
runner: ask 'uri'
gateway: info '/p/ask'
runner: ask 'request_body'
gateway: info none
runner: ask 'http_x_a'
gateway: info 'hi'
runner: ask 'host'
gateway: info 'gw.example'
runner: ask 'consumer_name'
gateway: info none
runner: ask 'upstream_addr'
gateway: info none
runner: ask 'bytes_sent'
gateway: info '0'
runner: ask for the request body
gateway: info 'the request body'
runner: ask for the response body
gateway: info none
runner: 0 unchanged
"#,
    ),
    (
        "ask-no-body",
        r#"
gateway: request 1 of 127.0.0.1 with token 1: GET '/p/ask' args [a='1'] headers [x-forwarded-port='9080', host='gw.example', x-forwarded-host='gw.example', x-forwarded-proto='http', connection='close']
runner: ask 'remote_addr'
gateway: info '127.0.0.1'
runner: ask 'nosuch'
gateway: info none
runner: ask 'arg_x'
gateway: info none
runner: ask 'request_id'
gateway: info '1bd987833b8f86fe00af5954d62a5337'
runner: ask 'uri'
gateway: info '/p/ask'
runner: ask 'request_body'
gateway: info none
runner: ask 'http_x_a'
gateway: info none
runner: ask 'host'
gateway: info 'gw.example'
runner: ask 'consumer_name'
gateway: info none
runner: ask 'upstream_addr'
gateway: info none
runner: ask 'bytes_sent'
gateway: info '0'
runner: ask for the request body
gateway: info none
runner: ask for the response body
gateway: info none
runner: 0 unchanged
"#,
    ),
    (
        "ask-response",
        r#"
gateway: prepare [stub='{"resp": {"ask": [["respbody"], ["var", "upstream_addr"], ["var", "status"], ["reqbody"], ["respbody"]]}}'] as 'route#4#ext-plugin-post-resp#1795197277'
runner: token 3
gateway: response 3 with token 3: 200 headers [X-Up='a', Content-Length='10', Location='/elsewhere', X-Multi='1', X-Multi='2', X-Plain='orig', Date='Fri, 20 Nov 2026 17:54:37 GMT', Server='echo-upstream ', Server='upsrv', Content-Type='text/plain']
runner: ask for the response body
gateway: info 'hdrs body\n'
runner: ask 'upstream_addr'
gateway: info none
runner: ask 'status'
gateway: info '0'
runner: ask for the request body
gateway: info none
runner: ask for the response body
gateway: info none
runner: 0 answer 0 headers [] body none
"#,
    ),
    (
        "fault-injection",
        r#"
gateway: prepare [fault-injection='{"http_status":403,"body":"injected"}'] as 'route#2#ext-plugin-pre-req#1795197270'
runner: token 3
gateway: request 13 of 127.0.0.1 with token 3: GET '/fault' args [] headers [x-forwarded-host='gw.example', x-forwarded-port='9080', host='gw.example', connection='close', x-forwarded-proto='http']
runner: 13 stop 403 headers [] body 'injected'
"#,
    ),
    (
        "fault-injection-0-percent",
        r#"
gateway: prepare [fault-injection='{"http_status":403,"percentage":0}'] as 'route#3#ext-plugin-pre-req#1795197270'
runner: token 4
gateway: request 14 of 127.0.0.1 with token 4: GET '/fault0' args [] headers [x-forwarded-host='gw.example', x-forwarded-port='9080', host='gw.example', connection='close', x-forwarded-proto='http']
runner: 14 unchanged
"#,
    ),
    (
        "limit-req",
        r#"
gateway: prepare [limit-req='{"rate":5,"burst":1}'] as 'route#4#ext-plugin-pre-req#1795197270'
runner: token 5
gateway: request 15 of 127.0.0.1 with token 5: GET '/limit' args [] headers [x-forwarded-host='gw.example', x-forwarded-port='9080', host='gw.example', connection='close', x-forwarded-proto='http']
runner: 15 unchanged
"#,
    ),
    (
        "no-conf",
        r#"
gateway: prepare [] as 'route#11#ext-plugin-pre-req#1795197270'
runner: token 11
gateway: request 22 of 127.0.0.1 with token 11: GET '/noconf' args [] headers [x-forwarded-host='gw.example', x-forwarded-port='9080', host='gw.example', connection='close', x-forwarded-proto='http']
runner: 22 unchanged
"#,
    ),
    (
        "pre-and-post",
        r#"
gateway: prepare [request-body-rewrite='{"new_body":"FIRST"}'] as 'route#12#ext-plugin-pre-req#1795197270'
runner: token 12
gateway: request 23 of 127.0.0.1 with token 12: GET '/two' args [] headers [x-forwarded-host='gw.example', x-forwarded-port='9080', host='gw.example', connection='close', x-forwarded-proto='http']
runner: 23 rewrite path none headers [] args [] response headers [] body 'FIRST'
gateway: prepare [say='{"body":"second"}'] as 'route#12#ext-plugin-post-req#1795197270'
runner: token 13
gateway: request 24 of 127.0.0.1 with token 13: GET '/two' args [] headers [x-forwarded-host='gw.example', x-forwarded-port='9080', host='gw.example', connection='close', x-forwarded-proto='http']
runner: 24 stop 200 headers [X-Resp-A6-Runner='Go'] body 'second'
"#,
    ),
    (
        "request-body-rewrite",
        r#"
gateway: prepare [request-body-rewrite='{"new_body":"NEW"}'] as 'route#5#ext-plugin-pre-req#1795197270'
runner: token 6
gateway: request 16 of 127.0.0.1 with token 6: POST '/body' args [] headers [content-length='8', content-type='text/plain', host='gw.example', x-forwarded-port='9080', x-forwarded-host='gw.example', connection='close', x-forwarded-proto='http']
runner: 16 rewrite path none headers [] args [] response headers [] body 'NEW'
"#,
    ),
    (
        "response-rewrite-500",
        r#"
gateway: response 18 with token 7: 500 headers [Content-Length='16', Content-Type='application/json', Server='echo-upstream ', Date='Fri, 20 Nov 2026 17:54:33 GMT']
runner: 18 answer 0 headers [X-Resp-A6-Runner='Go', X-Server-Id='9527'] body 'rewritten'
"#,
    ),
    (
        "response-rewrite-body",
        r#"
gateway: prepare [response-rewrite='{"headers":{"X-Server-Id":"9527"},"body":"rewritten"}'] as 'route#7#ext-plugin-post-resp#1795197270'
runner: token 7
gateway: response 17 with token 7: 200 headers [Content-Length='10', Content-Type='text/plain', X-Up='a', Date='Fri, 20 Nov 2026 17:54:33 GMT', X-Plain='orig', X-Multi='1', X-Multi='2', Location='/elsewhere', Server='echo-upstream ', Server='upsrv']
runner: 17 answer 0 headers [X-Resp-A6-Runner='Go', X-Server-Id='9527'] body 'rewritten'
"#,
    ),
    (
        "response-rewrite-filter",
        r#"
gateway: prepare [response-rewrite='{"filters":[{"regex":"2","scope":"global","replace":"TWO"}]}'] as 'route#8#ext-plugin-post-resp#1795197270'
runner: token 8
gateway: response 19 with token 8: 200 headers [Transfer-Encoding='chunked', Server='echo-upstream ', Date='Fri, 20 Nov 2026 17:54:33 GMT']
runner: ask for the response body
gateway: info '1\n2\n3\n'
runner: 19 answer 0 headers [X-Resp-A6-Runner='Go'] body '1\nTWO\n3\n'
"#,
    ),
    (
        "response-rewrite-nomatch",
        r#"
gateway: prepare [response-rewrite='{"filters":[{"regex":"zzz","scope":"once","replace":"y"}]}'] as 'route#9#ext-plugin-post-resp#1795197270'
runner: token 9
gateway: response 20 with token 9: 200 headers [Content-Length='271', Content-Type='application/json', Server='echo-upstream ', Date='Fri, 20 Nov 2026 17:54:34 GMT']
runner: ask for the response body
gateway: info '{"method": "GET", "uri": "/nomatch/x", "headers": [["x-forwarded-host", "gw.example"], ["x-forwarded-port", "9080"], ["host", "gw.example"], ["User-Agent", "lua-resty-http/0.16.1 (Lua) ngx_lua/10031"], ["connection", "close"], ["x-forwarded-proto", "http"]], "body": ""}\n'
runner: 20 answer 0 headers [X-Resp-A6-Runner='Go'] body none
"#,
    ),
    (
        "say-again",
        r#"
gateway: request 1 of 127.0.0.1 with token 1: GET '/say' args [] headers [x-forwarded-host='gw.example', x-forwarded-port='9080', host='gw.example', connection='close', x-forwarded-proto='http']
runner: 1 stop 200 headers [X-Resp-A6-Runner='Go'] body 'hello'
"#,
    ),
    (
        "say-args",
        r#"
gateway: request 2 of 127.0.0.1 with token 1: GET '/say' args [flag, xx='y', xx='z', \xe4\xbd\xa0='\xe5\xa5\xbd', e=''] headers [x-forwarded-host='gw.example', x-forwarded-port='9080', host='gw.example', connection='close', x-forwarded-proto='http']
runner: 2 stop 200 headers [X-Resp-A6-Runner='Go'] body 'hello'
"#,
    ),
    (
        "say-browser",
        r#"
gateway: request 5 of 127.0.0.1 with token 1: GET '/say' args [id='42', utm_source='x'] headers [sec-fetch-site='cross-site', accept='text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8', host='gw.example', x-forwarded-port='9080', x-forwarded-host='gw.example', user-agent='Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0', accept-encoding='gzip, deflate, br, zstd', cookie='session=4f3c2a1b9e8d7c6f5a4b3c2d1e0f; theme=dark', accept-language='en-US,en;q=0.5', referer='https://example.org/start?page=2', connection='close', priority='u=0, i', upgrade-insecure-requests='1', sec-fetch-dest='document', sec-fetch-mode='navigate', x-forwarded-proto='http']
runner: 5 stop 200 headers [X-Resp-A6-Runner='Go'] body 'hello'
"#,
    ),
    (
        "say-first",
        r#"
gateway: prepare [say='{"body":"hello"}'] as 'route#1#ext-plugin-pre-req#1795197270'
runner: token 1
gateway: request 0 of 127.0.0.1 with token 1: GET '/say' args [] headers [x-forwarded-host='gw.example', x-forwarded-port='9080', host='gw.example', connection='close', x-forwarded-proto='http']
runner: 0 stop 200 headers [X-Resp-A6-Runner='Go'] body 'hello'
"#,
    ),
    (
        "say-headers",
        r#"
gateway: request 4 of 127.0.0.1 with token 1: GET '/say' args [] headers [x-h26='v26', x-h13='v13', x-h14='v14', x-h15='v15', x-h16='v16', x-h17='v17', x-h32='v32', x-h33='v33', x-h34='v34', x-h35='v35', x-h36='v36', x-req='foo', x-req='bar', x-h38='v38', x-h0='v0', x-h1='v1', x-h2='v2', x-h3='v3', x-h4='v4', host='gw.example', x-h6='v6', x-h30='v30', x-h7='v7', x-forwarded-host='gw.example', x-h8='v8', x-h31='v31', connection='close', x-h39='v39', x-h10='v10', x-h37='v37', x-h11='v11', x-forwarded-proto='http', x-h12='v12', x-forwarded-port='9080', x-h19='v19', x-h29='v29', x-h20='v20', x-h28='v28', x-h21='v21', x-h27='v27', x-h22='v22', cookie='a=1; b=2', x-h23='v23', x-h9='v9', x-h24='v24', x-h18='v18', x-h25='v25', x-h5='v5']
runner: 4 stop 200 headers [X-Resp-A6-Runner='Go'] body 'hello'
"#,
    ),
    (
        "say-method-delete",
        r#"
gateway: request 9 of 127.0.0.1 with token 1: DELETE '/say' args [] headers [x-forwarded-host='gw.example', x-forwarded-port='9080', host='gw.example', connection='close', x-forwarded-proto='http']
runner: 9 stop 200 headers [X-Resp-A6-Runner='Go'] body 'hello'
"#,
    ),
    (
        "say-method-head",
        r#"
gateway: request 7 of 127.0.0.1 with token 1: HEAD '/say' args [] headers [x-forwarded-host='gw.example', x-forwarded-port='9080', host='gw.example', connection='close', x-forwarded-proto='http']
runner: 7 stop 200 headers [X-Resp-A6-Runner='Go'] body 'hello'
"#,
    ),
    (
        "say-method-options",
        r#"
gateway: request 10 of 127.0.0.1 with token 1: OPTIONS '/say' args [] headers [x-forwarded-host='gw.example', x-forwarded-port='9080', host='gw.example', connection='close', x-forwarded-proto='http']
runner: 10 stop 200 headers [X-Resp-A6-Runner='Go'] body 'hello'
"#,
    ),
    (
        "say-method-patch",
        r#"
gateway: request 11 of 127.0.0.1 with token 1: PATCH '/say' args [] headers [x-forwarded-host='gw.example', x-forwarded-port='9080', host='gw.example', connection='close', x-forwarded-proto='http']
runner: 11 stop 200 headers [X-Resp-A6-Runner='Go'] body 'hello'
"#,
    ),
    (
        "say-method-propfind",
        r#"
gateway: request 12 of 127.0.0.1 with token 1: PROPFIND '/say' args [] headers [x-forwarded-host='gw.example', x-forwarded-port='9080', host='gw.example', connection='close', x-forwarded-proto='http']
runner: 12 stop 200 headers [X-Resp-A6-Runner='Go'] body 'hello'
"#,
    ),
    (
        "say-method-put",
        r#"
gateway: request 8 of 127.0.0.1 with token 1: PUT '/say' args [] headers [content-length='0', x-forwarded-port='9080', host='gw.example', x-forwarded-host='gw.example', connection='close', x-forwarded-proto='http']
runner: 8 stop 200 headers [X-Resp-A6-Runner='Go'] body 'hello'
"#,
    ),
    (
        "say-post-req",
        r#"
gateway: prepare [say='{"body":"hello post"}'] as 'route#6#ext-plugin-post-req#1795197270'
runner: token 2
gateway: request 6 of 127.0.0.1 with token 2: GET '/say-post' args [] headers [x-forwarded-host='gw.example', x-forwarded-port='9080', host='gw.example', connection='close', x-forwarded-proto='http']
runner: 6 stop 200 headers [X-Resp-A6-Runner='Go'] body 'hello post'
"#,
    ),
    (
        "say-raw-bytes",
        r#"
gateway: request 3 of 127.0.0.1 with token 1: GET '/say' args [b='\xff\xfe'] headers [x-forwarded-host='gw.example', x-forwarded-port='9080', host='gw.example', connection='close', x-raw='\xff\xfe', x-forwarded-proto='http']
runner: 3 stop 200 headers [X-Resp-A6-Runner='Go'] body 'hello'
"#,
    ),
    (
        "token-not-found-once",
        r#"
gateway: prepare [stub='{"req": {"token_not_found_times": 1, "action": "stop", "status": 200, "body": "after retry"}}'] as 'route#1#ext-plugin-pre-req#1795197277'
runner: token 5
gateway: request 5 of 127.0.0.1 with token 5: GET '/p/nf1' args [] headers [x-forwarded-port='9080', host='gw.example', x-forwarded-host='gw.example', x-forwarded-proto='http', connection='close']
runner: error 2
gateway: prepare [stub='{"req": {"token_not_found_times": 1, "action": "stop", "status": 200, "body": "after retry"}}'] as 'route#1#ext-plugin-pre-req#1795197277'
runner: token 6
gateway: request 6 of 127.0.0.1 with token 6: GET '/p/nf1' args [] headers [x-forwarded-port='9080', host='gw.example', x-forwarded-host='gw.example', x-forwarded-proto='http', connection='close']
runner: 0 stop 200 headers [] body 'after retry'
"#,
    ),
    (
        "two-plugins-one-route",
        r#"
gateway: prepare [stub='{}', say@^1.2='{"body":"caf\xc3\xa9 \xe4\xbd\xa0\xe5\xa5\xbd"}', not json='<xml/>'] as 'route#90#ext-plugin-pre-req#1795197277'
runner: token 8
gateway: request 8 of 127.0.0.1 with token 8: GET '/p/multi' args [] headers [x-forwarded-port='9080', host='gw.example', x-forwarded-host='gw.example', x-forwarded-proto='http', connection='close']
runner: 0 unchanged
"#,
    ),
    (
        "unknown-plugin",
        r#"
gateway: prepare [no-such-plugin='{}'] as 'route#10#ext-plugin-pre-req#1795197270'
runner: token 10
gateway: request 21 of 127.0.0.1 with token 10: GET '/unknown' args [] headers [x-forwarded-host='gw.example', x-forwarded-port='9080', host='gw.example', connection='close', x-forwarded-proto='http']
runner: 21 unchanged
"#,
    ),
    (
        "upstream-204",
        r#"
gateway: prepare [stub='{"resp": {}}'] as 'route#5#ext-plugin-post-resp#1795197277'
runner: token 7
gateway: response 7 with token 7: 204 headers [Content-Type='application/json', Date='Fri, 20 Nov 2026 17:54:38 GMT', Server='echo-upstream ']
runner: 0 answer 0 headers [] body none
"#,
    ),
];

#[test]
fn every_recorded_frame_reads_as_what_was_sent() {
    for (name, expected) in EXPECTED {
        check(name, expected);
    }
}

#[test]
fn no_recording_is_left_out() {
    let expected: BTreeSet<String> = EXPECTED
        .iter()
        .map(|(name, _)| (*name).to_owned())
        .collect();
    let recorded: BTreeSet<String> = Capture::all()
        .into_iter()
        .map(|capture| capture.name)
        .collect();
    assert_eq!(recorded, expected);
}

#[test]
fn a_recorded_body_of_300_000_bytes_arrives_byte_by_byte() {
    let recording = Capture::load("ask-large-body");
    let answer = recording
        .frames
        .iter()
        .find(|frame| frame.data.len() > 300_000)
        .unwrap();
    let read = |frame: plugin_proto::Frame<'_>| {
        Message::read(Side::Gateway, frame.frame_type().unwrap(), frame.data()).unwrap()
    };
    // What the client sent: the numbers 0 to 250, again and again.
    let sent = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
    assert_eq!(
        first_frame(&answer.bytes(), read),
        Some(Message::Info {
            result: Some(Bytes(sent))
        })
    );
}
