//! What a call costs the host in allocations, counted over its socket: a regression shows here on any
//! machine, however busy.
//!
//! The event loop runs on the test's own thread, and only that thread's allocations are counted. A plugin has
//! an allocator of its own: what it allocates is not the host's.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[allow(dead_code, reason = "benches use the rest of it")]
#[path = "../benches/embedded.rs"]
mod embedded;
#[allow(dead_code, reason = "only one of them is needed")]
#[path = "e2e/support/libraries.rs"]
mod libraries;

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    sync::{Arc, mpsc},
    thread,
};

use plugin_host::server::{self, Shutdown};
use plugin_proto::{FrameBuffer, FrameType, FrameWriter, extra_info};
use tokio::{
    net::UnixListener,
    sync::{Notify, watch},
};

use embedded::{Embedded, ONE_HEADER, request};

/// Calls before the count begins: buffers have grown by then.
const WARM_UP: usize = 100;

/// Calls that are counted.
const CALLS: u64 = 1_000;

/// Allocations of the host during so many calls of a chain of `versioned` with these configurations.
fn allocations(configurations: &[&str]) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("s");
    let (go, started) = mpsc::sync_channel(1);
    let (warm, done) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (_running, shutdown) = watch::channel(Shutdown::Running);
    let (embedded, gateway) = runtime.block_on(async {
        let embedded = Embedded::load("versioned").await;
        let token = embedded.prepare("versioned", configurations).await;
        let listener = UnixListener::bind(&socket).unwrap();
        let (_, given) = tokio::sync::mpsc::unbounded_channel();
        let shared = Arc::clone(&embedded.shared);
        tokio::spawn(server::serve(listener, given, shared, shutdown));
        let (say_warm, say_done) = (Arc::clone(&warm), Arc::clone(&done));
        let gateway = thread::spawn(move || {
            let mut stream = UnixStream::connect(socket).unwrap();
            let call = request(token);
            (0..WARM_UP).for_each(|_| ask(&mut stream, &call));
            say_warm.notify_one();
            started.recv().unwrap();
            (0..CALLS).for_each(|_| ask(&mut stream, &call));
            say_done.notify_one();
        });
        warm.notified().await;
        (embedded, gateway)
    });
    go.send(()).unwrap();
    let counted = allocation_counter::measure(|| runtime.block_on(done.notified()));
    gateway.join().unwrap();
    drop(embedded);
    counted.count_total
}

/// Makes a call, knows no variable, and makes sure that the call is answered by a change.
fn ask(stream: &mut UnixStream, call: &[u8]) {
    stream.write_all(call).unwrap();
    let mut buffer = FrameBuffer::new();
    loop {
        let read = stream.read(buffer.spare()).unwrap();
        assert!(read > 0, "the host has closed the connection");
        buffer.filled(read);
        let Some(frame) = buffer.frame() else {
            continue;
        };
        match frame.frame_type().unwrap() {
            FrameType::ExtraInfo => {
                let mut writer = FrameWriter::new();
                let answer = extra_info::write_answer(&mut writer, None).unwrap();
                buffer.consume();
                stream.write_all(answer).unwrap();
            }
            FrameType::HttpReqCall => {
                let sets = frame.data().windows(9).any(|bytes| bytes == b"x-version");
                assert!(sets, "the plugin sets a header");
                return;
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_call_whose_plugin_sets_a_header_allocates_nothing_in_the_host() {
    assert_eq!(allocations(&[ONE_HEADER]), 0);
}

#[test]
fn further_plugins_in_the_chain_allocate_nothing_in_the_host() {
    let other = r#"{"word": "v", "pass": true}"#;
    assert_eq!(
        allocations(&[ONE_HEADER, other, ONE_HEADER]),
        allocations(&[ONE_HEADER])
    );
}

#[test]
fn a_question_to_the_gateway_allocates_nine_times_in_the_host() {
    let asking = r#"{"word": "w", "pass": true, "ask": "route_id"}"#;
    assert_eq!(
        allocations(&[asking]),
        allocations(&[ONE_HEADER]) + 9 * CALLS
    );
}
