//! What the pieces of a call cost, each by itself, so that a regression has an address.
//!
//! `cargo bench -p plugin-host --bench path`. The message alone (verification, views, answers) is measured in
//! `proto/benches/messages.rs`; all pieces together over a socket by `scripts/bench`.

#[allow(dead_code, reason = "the test of allocations uses the rest of it")]
mod embedded;
#[allow(clippy::unwrap_used, reason = "the tests' own")]
#[allow(dead_code, reason = "tests build all of them")]
#[path = "../tests/e2e/support/libraries.rs"]
mod libraries;

use std::sync::LazyLock;

use divan::{Bencher, black_box};
use futures_util::{FutureExt, future::poll_immediate};
use plugin_abi::abi::Outcome;
use plugin_host::pipeline::{self, End, PluginFailure, call::CallBox};
use plugin_proto::{FrameBuffer, FrameWriter, http_req_call};
use tokio::{runtime::Runtime, time::Instant};

use embedded::{Embedded, Ignorant, ONE_HEADER, call, receive, request};

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("there are threads"));

fn main() {
    // So many that the clock's resolution does not count.
    divan::Divan::from_args().sample_size(1000).main();
}

#[divan::bench]
fn frame_received_and_consumed(bencher: Bencher<'_, '_>) {
    let frame = request(1);
    let mut incoming = FrameBuffer::new();
    bencher.bench_local(|| {
        receive(&mut incoming, black_box(&frame));
        let complete = incoming.frame().is_some();
        incoming.consume();
        complete
    });
}

#[divan::bench]
fn view_taken_into_a_call(bencher: Bencher<'_, '_>) {
    let frame = request(1);
    let mut incoming = FrameBuffer::new();
    let mut call = CallBox::new();
    bencher.bench_local(|| {
        receive(&mut incoming, black_box(&frame));
        call.take_request(&mut incoming).expect("a valid message")
    });
}

#[divan::bench]
fn token_found(bencher: Bencher<'_, '_>) {
    let embedded = RUNTIME.block_on(Embedded::load("versioned"));
    let token = RUNTIME.block_on(embedded.prepare("versioned", &[ONE_HEADER]));
    let now = Instant::now();
    bencher.bench_local(|| embedded.shared.tokens.find(black_box(token), now).is_some());
}

/// From the call to the plugin's verdict, through the library, with nothing in it.
#[divan::bench]
fn abi_call_of_say_that_lets_pass(bencher: Bencher<'_, '_>) {
    abi_call(bencher, "say", r#"{"body": ""}"#);
}

#[divan::bench]
fn abi_call_of_say_that_answers(bencher: Bencher<'_, '_>) {
    abi_call(bencher, "say", r#"{"body": "hello"}"#);
}

#[divan::bench]
fn abi_call_that_sets_a_header(bencher: Bencher<'_, '_>) {
    abi_call(bencher, "versioned", ONE_HEADER);
}

fn abi_call(bencher: Bencher<'_, '_>, plugin: &str, configuration: &str) {
    let embedded = RUNTIME.block_on(Embedded::load(plugin));
    let configured = embedded
        .generation(plugin)
        .configure(configuration.as_bytes());
    let configured = configured.expect("a valid configuration");
    let frame = request(1);
    bencher
        .with_inputs(|| call(&frame).into_object())
        .bench_local_values(|call| -> Option<Outcome> {
            poll_immediate(configured.request(call))
                .now_or_never()
                .flatten()
        });
}

/// A chain of no, one and three plugins, each of which sets a header.
#[divan::bench(args = [0, 1, 3])]
fn chain_run(bencher: Bencher<'_, '_>, plugins: usize) {
    let embedded = RUNTIME.block_on(Embedded::load("versioned"));
    let configurations = vec![ONE_HEADER; plugins];
    let chain = RUNTIME.block_on(async {
        let token = embedded.prepare("versioned", &configurations).await;
        embedded.chain(token).await
    });
    let _entered = RUNTIME.enter();
    let frame = request(1);
    let now = Instant::now();
    bencher
        .with_inputs(|| call(&frame))
        .bench_local_values(|call| {
            let pipeline = &embedded.shared.pipeline;
            let mut gateway = Ignorant;
            let end = pipeline::run(
                pipeline,
                &chain,
                call,
                &mut gateway,
                now,
                |_: &PluginFailure| {},
            );
            let end = end.now_or_never().expect("no plugin waits");
            assert!(matches!(end, End::Passed(_)));
            end
        });
}

/// The answer to a call whose plugin has set a header.
#[divan::bench]
fn answer_built(bencher: Bencher<'_, '_>) {
    let embedded = RUNTIME.block_on(Embedded::load("versioned"));
    let chain = RUNTIME.block_on(async {
        let token = embedded.prepare("versioned", &[ONE_HEADER]).await;
        embedded.chain(token).await
    });
    let pipeline = &embedded.shared.pipeline;
    let mut gateway = Ignorant;
    let frame = request(1);
    let end = RUNTIME.block_on(pipeline::run(
        pipeline,
        &chain,
        call(&frame),
        &mut gateway,
        Instant::now(),
        |_: &PluginFailure| {},
    ));
    let End::Passed(call) = end else {
        panic!("{end:?}");
    };
    let mut writer = FrameWriter::new();
    bencher.bench_local(|| {
        let changes = http_req_call::Rewrite {
            path: call.changed_path(),
            headers: call.header_changes(),
            args: call.argument_changes(),
            resp_headers: call.response_headers(),
            body: call.changed_body(),
        };
        let frame = http_req_call::write_rewrite(&mut writer, call.id(), changes);
        frame.expect("a small message").len()
    });
}
