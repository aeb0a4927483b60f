//! The recorded exchanges of a real gateway, put to the host byte by byte: what it asks and answers
//! is what the recorded runner did, or better where that had a quirk.

use std::collections::HashMap;

use plugin_proto::FrameType;

use crate::{
    capture::{Capture, RecordedFrame},
    message::{Bytes, Message, Side},
    support::{Gateway, Host},
};

/// What the host says to a recording, one line each, without tokens and the numbers of calls.
type Said = Vec<String>;

/// Where the host differs from the recorded runner: the recording, why, and what is said instead.
const BETTER: &[(&str, &str, &[&str])] = &[
    (
        "ask-many",
        "a request has no response yet, so its body is not asked for",
        ASK_ALL_BUT_THE_RESPONSE,
    ),
    (
        "ask-no-body",
        "a request has no response yet, so its body is not asked for",
        // Its token was prepared in another recording.
        ASK_ALL_BUT_THE_RESPONSE.split_at(1).1,
    ),
    (
        "ask-response",
        "one question travels once; all of the upstream's headers are sent back",
        &[
            "token 0",
            "ask for the response body",
            "ask 'upstream_addr'",
            "ask 'status'",
            "0 answer 0 headers [X-Up='a', Location='/elsewhere', X-Multi='1', X-Multi='2', X-Plain='orig', Date='Fri, 20 Nov 2026 17:54:37 GMT', Server='echo-upstream ', Server='upsrv', Content-Type='text/plain'] body none",
        ],
    ),
    (
        "response-rewrite-500",
        "all of the upstream's headers are sent back",
        &[
            "0 answer 0 headers [Content-Type='application/json', Server='echo-upstream ', Date='Fri, 20 Nov 2026 17:54:33 GMT', X-Server-Id='9527'] body 'rewritten'",
        ],
    ),
    (
        "response-rewrite-body",
        "all of the upstream's headers are sent back",
        &[
            "token 0",
            "0 answer 0 headers [Content-Type='text/plain', X-Up='a', Date='Fri, 20 Nov 2026 17:54:33 GMT', X-Plain='orig', X-Multi='1', X-Multi='2', Location='/elsewhere', Server='echo-upstream ', Server='upsrv', X-Server-Id='9527'] body 'rewritten'",
        ],
    ),
    (
        "response-rewrite-filter",
        "all of the upstream's headers are sent back",
        &[
            "token 0",
            "ask for the response body",
            "0 answer 0 headers [Server='echo-upstream ', Date='Fri, 20 Nov 2026 17:54:33 GMT'] body '1\\nTWO\\n3\\n'",
        ],
    ),
    (
        "response-rewrite-nomatch",
        "all of the upstream's headers are sent back",
        &[
            "token 0",
            "ask for the response body",
            "0 answer 0 headers [Content-Type='application/json', Server='echo-upstream ', Date='Fri, 20 Nov 2026 17:54:34 GMT'] body none",
        ],
    ),
    (
        "token-not-found-once",
        "the host does not forget a token; it gives the same one again",
        &[
            "token 0",
            "0 stop 200 headers [] body 'after retry'",
            "token 0",
            "0 stop 200 headers [] body 'after retry'",
        ],
    ),
    (
        "two-plugins-one-route",
        "a chain of which a plugin is missing or refuses its configuration fails closed",
        &["token 0", "error 1"],
    ),
    (
        "unknown-plugin",
        "a chain of which a plugin is missing fails closed",
        &["token 0", "error 1"],
    ),
    (
        "upstream-204",
        "one byte of body keeps the gateway from calling the upstream again",
        &[
            "token 0",
            "0 answer 204 headers [Content-Type='application/json', Date='Fri, 20 Nov 2026 17:54:38 GMT', Server='echo-upstream '] body ' '",
        ],
    ),
];

const ASK_ALL_BUT_THE_RESPONSE: &[&str] = &[
    "token 0",
    "ask 'remote_addr'",
    "ask 'nosuch'",
    "ask 'arg_x'",
    "ask 'request_id'",
    "ask 'uri'",
    "ask 'request_body'",
    "ask 'http_x_a'",
    "ask 'host'",
    "ask 'consumer_name'",
    "ask 'upstream_addr'",
    "ask 'bytes_sent'",
    "ask for the request body",
    "0 unchanged",
];

/// Recordings of the scripted runner; all others are of the Go runner.
fn is_of_the_stub(name: &str) -> bool {
    name.starts_with("ask-")
        || [
            "after-proxy-rewrite",
            "token-not-found-once",
            "two-plugins-one-route",
            "upstream-204",
        ]
        .contains(&name)
}

/// Configurations by the runner and the token that it gave for them: some recordings use a token
/// of an earlier one.
type Prepared = HashMap<(bool, u32), RecordedFrame>;

fn prepared_in_all(captures: &[Capture]) -> Prepared {
    let mut prepared = Prepared::new();
    for capture in captures {
        let mut latest = None;
        for frame in &capture.frames {
            match read(frame) {
                Message::Prepare { .. } => latest = Some(frame),
                Message::Token { conf_token } => {
                    let key = (is_of_the_stub(&capture.name), conf_token);
                    prepared.insert(key, latest.unwrap().clone());
                }
                _ => {}
            }
        }
    }
    prepared
}

/// Replays a recording and writes down what the host says.
fn replay(capture: &Capture, host: &Host, prepared: &Prepared) -> Said {
    let mut said = Said::new();
    let answers = recorded_answers(capture);
    let mut connections: HashMap<u32, Gateway> = HashMap::new();
    for frame in &capture.frames {
        if frame.from == Side::Runner {
            continue;
        }
        let gateway = connections
            .entry(frame.connection)
            .or_insert_with(|| host.gateway());
        match read(frame) {
            Message::Prepare { .. } => {
                gateway.send_bytes(&frame.bytes());
                let token = gateway.receive();
                assert!(matches!(token, Message::Token { .. }), "{token}");
                said.push(line(&token));
            }
            Message::RequestCall { id, conf_token, .. }
            | Message::ResponseCall { id, conf_token, .. } => {
                let conf = &prepared[&(is_of_the_stub(&capture.name), conf_token)];
                let token = token_of(host, conf);
                gateway.send_bytes(&with_token(frame, token).bytes());
                loop {
                    let message = gateway.receive();
                    said.push(line(&message));
                    match answers.get(&line(&message)) {
                        Some(answer) => gateway.send_bytes(&answer.bytes()),
                        None => {
                            assert_eq!(id_of(&message).unwrap_or(id), id);
                            break;
                        }
                    }
                }
            }
            _ => {}
        }
    }
    said
}

/// What the gateway answered to each question, the first time that it was asked.
fn recorded_answers(capture: &Capture) -> HashMap<String, &RecordedFrame> {
    let mut answers = HashMap::new();
    for exchange in capture.frames.windows(2) {
        if let [question, answer] = exchange
            && matches!(read(answer), Message::Info { .. })
        {
            answers.entry(line(&read(question))).or_insert(answer);
        }
    }
    answers
}

/// The host's token for a recorded configuration, which it may know already.
fn token_of(host: &Host, conf: &RecordedFrame) -> u32 {
    let mut gateway = host.gateway();
    gateway.send_bytes(&conf.bytes());
    match gateway.receive() {
        Message::Token { conf_token } => conf_token,
        other => panic!("{other} in answer to a prepare"),
    }
}

/// The recorded call with another token, put into its place in the buffer: everything else stays
/// as the gateway wrote it.
fn with_token(call: &RecordedFrame, token: u32) -> RecordedFrame {
    let mut call = call.clone();
    let data = &mut call.data;
    let at = |place: usize| u32::from_le_bytes(*data[place..].first_chunk().unwrap()) as usize;
    let root = at(0);
    let vtable = root.wrapping_sub(at(root));
    // Behind two lengths of two bytes each come the places of the fields, in the schema's order.
    let field = match FrameType::try_from(call.type_byte).unwrap() {
        FrameType::HttpReqCall => 6,
        _ => 3,
    };
    let slot = vtable + 4 + 2 * field;
    let place = root + usize::from(u16::from_le_bytes(*data[slot..].first_chunk().unwrap()));
    data[place..place + 4].copy_from_slice(&token.to_le_bytes());
    call
}

fn read(frame: &RecordedFrame) -> Message {
    // Aligned, as the views want it.
    crate::capture::first_frame(&frame.bytes(), |whole| {
        Message::read(frame.from, frame.frame_type(), whole.data()).unwrap()
    })
    .unwrap()
}

fn id_of(message: &Message) -> Option<u32> {
    match message {
        Message::Unchanged { id }
        | Message::Stop { id, .. }
        | Message::Rewrite { id, .. }
        | Message::ResponseAnswer { id, .. } => Some(*id),
        _ => None,
    }
}

/// A message without what differs from run to run, and without the runner's name.
fn line(message: &Message) -> String {
    let mut message = message.clone();
    match &mut message {
        Message::Token { conf_token } => *conf_token = 0,
        Message::Unchanged { id } | Message::Rewrite { id, .. } => *id = 0,
        Message::Stop { id, headers, .. } | Message::ResponseAnswer { id, headers, .. } => {
            *id = 0;
            for (name, value) in headers {
                if name.0 == b"X-Resp-A6-Runner" {
                    *value = Some(Bytes::from("..."));
                }
            }
        }
        _ => {}
    }
    message.to_string()
}

#[test]
fn recorded_calls_are_answered_as_they_were_or_better() {
    let mut builder = Host::builder();
    for plugin in [
        "fault-injection",
        "limit-req",
        "request-body-rewrite",
        "response-rewrite",
        "say",
        "stub",
    ] {
        builder = builder.plugin(plugin);
    }
    let host = builder.start();
    let captures = Capture::all();
    assert_eq!(captures.len(), 32);
    let prepared = prepared_in_all(&captures);
    for capture in &captures {
        let recorded = capture
            .frames
            .iter()
            .filter(|frame| frame.from == Side::Runner)
            .map(|frame| line(&read(frame)));
        let recorded: Said = recorded.collect();
        let said = replay(capture, &host, &prepared);
        match BETTER.iter().find(|(name, ..)| *name == capture.name) {
            Some((name, why, better)) => {
                assert_eq!(said, *better, "{name}: {why}");
                assert_ne!(said, recorded, "{name}: no longer better");
            }
            None => assert_eq!(said, recorded, "{}", capture.name),
        }
    }
}
