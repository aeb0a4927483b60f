//! What one message costs: verified by generated code and by ours, read, and written.
//!
//! `cargo bench -p plugin-proto --bench messages`. Generated code is here only to compare with: the crate
//! writes with it and does not read with it.

use divan::{Bencher, black_box};
use plugin_proto::http_req_call::{self, Request, RequestView, Rewrite};
use plugin_proto::{Entry, FrameBuffer, FrameWriter, Method};

#[allow(
    clippy::all,
    clippy::pedantic,
    clippy::undocumented_unsafe_blocks,
    clippy::unwrap_used,
    dead_code,
    missing_docs,
    non_camel_case_types,
    rustdoc::all,
    unreachable_pub,
    unsafe_code,
    unsafe_op_in_unsafe_fn,
    unused_imports,
    reason = "written by the schema's compiler, in its own style"
)]
#[rustfmt::skip]
#[path = "../src/generated.rs"]
mod generated;

mod browser;

use browser::HEADERS;
use generated::a6::httpreq_call as wire;

fn main() {
    // So many that the clock's resolution does not count.
    divan::Divan::from_args().sample_size(1000).main();
}

/// A browser's request with 12 headers and 2 arguments, as it lies in a connection's buffer.
fn request() -> FrameBuffer {
    let mut writer = FrameWriter::new();
    let request = Request {
        id: 7,
        src_ip: Some(&[203, 0, 113, 7]),
        method: Method::Get,
        path: b"/articles/2026/11/flatbuffers",
        args: [entry(("page", "2")), entry(("sort", "date"))],
        headers: HEADERS.map(entry),
        conf_token: 42,
    };
    let frame = http_req_call::write_request(&mut writer, request).expect("a small message");
    let mut buffer = FrameBuffer::new();
    buffer.spare()[..frame.len()].copy_from_slice(frame);
    buffer.filled(frame.len());
    buffer
}

fn entry((name, value): (&'static str, &'static str)) -> Entry<'static> {
    Entry {
        name: name.as_bytes(),
        value: Some(value.as_bytes()),
    }
}

#[divan::bench]
fn generated_verification(bencher: Bencher<'_, '_>) {
    let buffer = request();
    let data = buffer.frame().expect("a whole frame").data();
    bencher.bench_local(|| flatbuffers::root::<wire::Req<'_>>(black_box(data)).is_ok());
}

#[divan::bench]
fn verification(bencher: Bencher<'_, '_>) {
    let buffer = request();
    let data = buffer.frame().expect("a whole frame").data();
    bencher.bench_local(|| RequestView::parse(black_box(data)).is_ok());
}

#[divan::bench]
fn generated_verification_and_all_fields(bencher: Bencher<'_, '_>) {
    let buffer = request();
    let data = buffer.frame().expect("a whole frame").data();
    bencher.bench_local(|| {
        let table = flatbuffers::root::<wire::Req<'_>>(black_box(data)).expect("valid");
        let mut bytes = table.path().map_or(0, |path| path.len());
        let lists = [table.args(), table.headers()];
        for entry in lists.into_iter().flatten().flatten() {
            bytes += entry.name().map_or(0, |name| name.len());
            bytes += entry.value().map_or(0, |value| value.len());
        }
        bytes
    });
}

#[divan::bench]
fn verification_and_all_fields(bencher: Bencher<'_, '_>) {
    let buffer = request();
    let data = buffer.frame().expect("a whole frame").data();
    bencher.bench_local(|| {
        let view = RequestView::parse(black_box(data)).expect("valid");
        let mut bytes = view.path().len();
        for entry in [view.args(), view.headers()].into_iter().flatten() {
            bytes += entry.name.len();
            bytes += entry.value.map_or(0, |value| value.len());
        }
        bytes
    });
}

#[divan::bench]
fn three_headers(bencher: Bencher<'_, '_>) {
    let buffer = request();
    let data = buffer.frame().expect("a whole frame").data();
    let view = RequestView::parse(data).expect("valid");
    bencher.bench_local(|| {
        let headers = black_box(view).headers();
        let value = |name: &[u8]| headers.iter().find(|header| header.name == name)?.value;
        [&b"host"[..], b"cookie", b"x-real-ip"].map(value)
    });
}

#[divan::bench]
fn verification_and_three_headers(bencher: Bencher<'_, '_>) {
    let buffer = request();
    let data = buffer.frame().expect("a whole frame").data();
    bencher.bench_local(|| {
        let headers = RequestView::parse(black_box(data))
            .expect("valid")
            .headers();
        let value = |name: &[u8]| headers.iter().find(|header| header.name == name)?.value;
        [&b"host"[..], b"cookie", b"x-real-ip"].map(value)
    });
}

#[divan::bench]
fn answer_with_one_header(bencher: Bencher<'_, '_>) {
    let mut writer = FrameWriter::new();
    let header = entry(("x-greeting", "hello"));
    bencher.bench_local(|| {
        let rewrite = Rewrite {
            path: None,
            headers: [black_box(header)],
            args: [],
            resp_headers: [],
            body: None,
        };
        let frame = http_req_call::write_rewrite(&mut writer, 7, rewrite);
        black_box(frame.expect("a small message").len())
    });
}

#[divan::bench]
fn answer_unchanged(bencher: Bencher<'_, '_>) {
    let mut writer = FrameWriter::new();
    bencher.bench_local(|| black_box(http_req_call::write_unchanged(&mut writer, 7)).len());
}
