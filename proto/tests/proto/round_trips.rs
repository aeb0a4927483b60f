//! What the writer writes, the views read; and what does not fit a frame is refused.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use plugin_proto::frame::{HEADER_LEN, MAX_DATA_LEN};
use plugin_proto::http_req_call::{self, AnswerView, Rewrite};
use plugin_proto::{
    Entry, FrameBuffer, FrameType, FrameWriter, Header, InvalidFrame, Method, err, extra_info,
    http_resp_call, prepare_conf,
};
use proptest::prelude::*;

use crate::capture::{feed, first_frame};
use crate::message::{Bytes, Message, Pair};

fn bytes() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..50).prop_map(Bytes)
}

fn maybe() -> impl Strategy<Value = Option<Bytes>> {
    prop::option::of(bytes())
}

fn list() -> impl Strategy<Value = Vec<Pair>> {
    prop::collection::vec((bytes(), maybe()), 0..8)
}

/// Every message that a writer can write.
pub(crate) fn messages() -> impl Strategy<Value = Message> {
    let request = (
        any::<u32>(),
        maybe(),
        0..15_u8,
        bytes(),
        list(),
        list(),
        any::<u32>(),
    );
    let rewrite = (any::<u32>(), maybe(), list(), list(), list(), maybe());
    prop_oneof![
        (0..3_u8).prop_map(|code| Message::Error { code }),
        (list(), maybe()).prop_map(|(conf, key)| Message::Prepare { conf, key }),
        any::<u32>().prop_map(|conf_token| Message::Token { conf_token }),
        request.prop_map(|(id, src_ip, method, path, args, headers, conf_token)| {
            Message::RequestCall {
                id,
                src_ip,
                method,
                path,
                args,
                headers,
                conf_token,
            }
        }),
        any::<u32>().prop_map(|id| Message::Unchanged { id }),
        (any::<u32>(), any::<u16>(), list(), maybe()).prop_map(|(id, status, headers, body)| {
            Message::Stop {
                id,
                status,
                headers,
                body,
            }
        }),
        rewrite.prop_map(|(id, path, headers, args, resp_headers, body)| {
            Message::Rewrite {
                id,
                path,
                headers,
                args,
                resp_headers,
                body,
            }
        }),
        bytes().prop_map(|name| Message::AskVariable { name }),
        Just(Message::AskRequestBody),
        Just(Message::AskResponseBody),
        maybe().prop_map(|result| Message::Info { result }),
        (any::<u32>(), any::<u16>(), list(), any::<u32>()).prop_map(
            |(id, status, headers, conf_token)| {
                Message::ResponseCall {
                    id,
                    status,
                    headers,
                    conf_token,
                }
            }
        ),
        (any::<u32>(), any::<u16>(), list(), maybe()).prop_map(|(id, status, headers, body)| {
            Message::ResponseAnswer {
                id,
                status,
                headers,
                body,
            }
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn every_message_reads_as_it_was_written(messages in prop::collection::vec(messages(), 1..4)) {
        // One writer and one buffer for all: nothing of a message may show up in the next.
        let (mut writer, mut buffer) = (FrameWriter::new(), FrameBuffer::new());
        for message in messages {
            let written = message.write(&mut writer).unwrap().unwrap();
            feed(&mut buffer, &written);
            let frame = buffer.frame().unwrap();
            prop_assert_eq!(HEADER_LEN + frame.data().len(), written.len());
            prop_assert!(!frame.data().is_empty());
            prop_assert_eq!(frame.frame_type(), Ok(message.frame_type()));
            let read = Message::read(message.side(), message.frame_type(), frame.data()).unwrap();
            prop_assert_eq!(read, message);
            buffer.consume();
            prop_assert!(buffer.is_empty());
        }
    }

    #[test]
    fn arbitrary_bytes_are_read_or_refused_and_nothing_else(data in prop::collection::vec(any::<u8>(), 0..200)) {
        for side in [crate::message::Side::Gateway, crate::message::Side::Runner] {
            for type_byte in 0..5 {
                let header = Header { type_byte, data_len: u32::try_from(data.len()).unwrap() };
                let stream = [&header.encode().unwrap(), data.as_slice()].concat();
                let frame_type = FrameType::try_from(type_byte).unwrap();
                let outcome = first_frame(&stream, |frame| Message::read(side, frame_type, frame.data()));
                if let Err(refused) = outcome.unwrap() {
                    prop_assert!(refused.to_string().starts_with("the peer sent"));
                }
            }
        }
    }
}

#[test]
fn the_fixed_answers_are_small() {
    let mut writer = FrameWriter::new();
    assert!(err::write(&mut writer, err::Code::ConfTokenNotFound).len() <= 24);
    assert!(prepare_conf::write_answer(&mut writer, 1).len() <= 24);
    assert!(http_req_call::write_unchanged(&mut writer, 1).len() <= 24);
}

#[test]
fn a_body_up_to_the_last_byte_of_a_frame_arrives() {
    let mut writer = FrameWriter::new();
    let overhead = extra_info::write_answer(&mut writer, Some(b""))
        .unwrap()
        .len()
        - HEADER_LEN;
    // Room for the closing NUL has to come from somewhere: the overhead has three bytes of padding.
    let body = vec![7; (MAX_DATA_LEN - overhead) & !3];
    let frame = extra_info::write_answer(&mut writer, Some(&body)).unwrap();
    assert!(
        MAX_DATA_LEN - (frame.len() - HEADER_LEN) < 4,
        "the frame is full"
    );
    first_frame(frame, |frame| {
        let view = extra_info::AnswerView::parse(frame.data()).unwrap();
        assert!(view.result() == Some(body.as_slice()));
    })
    .unwrap();
}

#[test]
fn what_does_not_fit_a_frame_is_refused_and_leaves_no_memory_behind() {
    let mut writer = FrameWriter::new();
    let fresh = writer.capacity();
    for len in [MAX_DATA_LEN - 10, MAX_DATA_LEN, MAX_DATA_LEN + 1] {
        let refused = extra_info::write_answer(&mut writer, Some(&vec![0; len])).unwrap_err();
        assert!(refused.at_least > MAX_DATA_LEN, "{refused}");
        assert_eq!(writer.capacity(), fresh);
    }
    let half = vec![0; MAX_DATA_LEN / 2 + 1];
    let headers = [
        Entry {
            name: b"a",
            value: Some(&half),
        },
        Entry {
            name: b"b",
            value: Some(&half),
        },
    ];
    assert!(http_req_call::write_stop(&mut writer, 1, 200, headers, None).is_err());
    assert!(http_resp_call::write_answer(&mut writer, 1, None, headers, None).is_err());
    assert!(prepare_conf::write_request(&mut writer, headers, None).is_err());
    assert_eq!(writer.capacity(), fresh);

    let after = http_req_call::write_stop(&mut writer, 1, 200, [], Some(b"fits")).unwrap();
    let id = first_frame(&after.to_vec(), |frame| {
        AnswerView::parse(frame.data()).unwrap().id()
    });
    assert_eq!(id, Some(1));
}

#[test]
fn a_list_without_end_is_refused() {
    let endless = std::iter::repeat(Entry {
        name: b"",
        value: None,
    });
    let refused =
        http_req_call::write_stop(&mut FrameWriter::new(), 1, 200, endless, None).unwrap_err();
    assert!(refused.at_least > MAX_DATA_LEN);
}

#[test]
fn a_warm_writer_needs_no_more_memory() {
    let mut writer = FrameWriter::new();
    let body = vec![b'x'; 5000];
    let header = Entry {
        name: b"x",
        value: Some(b"y"),
    };
    let rewrite = Rewrite {
        path: Some(b"/"),
        headers: [header; 20],
        args: [header; 20],
        resp_headers: [header; 20],
        body: Some(&body),
    };
    http_req_call::write_rewrite(&mut writer, 0, rewrite).unwrap();
    let warm = writer.capacity();
    for id in 1..1000 {
        http_req_call::write_rewrite(&mut writer, id, rewrite).unwrap();
        assert_eq!(writer.capacity(), warm);
    }
    writer.shrink(warm);
    assert_eq!(writer.capacity(), warm, "nothing to give back");
    writer.shrink(warm - 1);
    assert!(writer.capacity() <= 1024);
}

#[test]
fn a_large_body_is_part_of_its_frame_and_not_copied_into_it() {
    for length in 32_766..32_774 {
        let mut writer = FrameWriter::new();
        let body: Vec<u8> = (0..length).map(|index| index as u8).collect();
        let header = [Entry {
            name: b"a",
            value: Some(b"b"),
        }];
        let frame = http_req_call::write_stop(&mut writer, 7, 200, header, Some(&body)).unwrap();
        let [_, left_out, _] = frame.pieces();
        assert_eq!(left_out.len(), if length < 32_768 { 0 } else { length });
        assert_eq!(frame.to_vec(), writer.last(Some(&body)).to_vec());
        assert!(writer.capacity() <= 1024 || length < 32_768);
        let frame = writer.last(Some(&body)).to_vec();
        let read = first_frame(&frame, |frame| {
            let view = AnswerView::parse(frame.data()).unwrap();
            let http_req_call::Action::Stop { headers, body, .. } = view.action() else {
                panic!("{view:?}")
            };
            assert!(headers.iter().eq(header));
            body.unwrap().to_vec()
        });
        assert_eq!(read, Some(body));
    }
}

#[test]
fn absent_and_empty_values_stay_apart() {
    let mut writer = FrameWriter::new();
    let args = [
        Entry {
            name: b"z",
            value: None,
        },
        Entry {
            name: b"q",
            value: Some(b""),
        },
    ];
    let frame = http_req_call::write_stop(&mut writer, 1, 200, args, None).unwrap();
    first_frame(&frame.to_vec(), |frame| {
        let view = AnswerView::parse(frame.data()).unwrap();
        let http_req_call::Action::Stop { headers, body, .. } = view.action() else {
            panic!("{view:?}")
        };
        assert!(headers.iter().eq(args));
        assert_eq!(body, None);
    })
    .unwrap();
}

#[test]
fn strings_end_with_a_nul_for_readers_that_insist_on_it() {
    let mut writer = FrameWriter::new();
    let frame =
        extra_info::write_question(&mut writer, extra_info::Question::Var(b"host")).unwrap();
    let name = frame
        .windows(8)
        .position(|bytes| bytes == b"\x04\0\0\0host")
        .unwrap();
    assert_eq!(frame[name + 8], 0);
}

#[test]
fn data_at_an_odd_address_is_refused() {
    let mut writer = FrameWriter::new();
    let frame = prepare_conf::write_answer(&mut writer, 7).to_vec();
    let mut moved = vec![0; frame.len() + 4];
    let odd = (0..4)
        .find(|start| moved[*start..].as_ptr().addr() % 4 == 1)
        .unwrap();
    moved[odd..odd + frame.len()].copy_from_slice(&frame);
    let data = &moved[odd + HEADER_LEN..][..frame.len() - HEADER_LEN];
    assert_eq!(
        prepare_conf::AnswerView::parse(data).unwrap_err(),
        InvalidFrame::Unaligned
    );
}

#[test]
fn a_union_of_unknown_kind_is_named() {
    let mut writer = FrameWriter::new();
    let stop = http_req_call::write_stop(&mut writer, 1, 200, [], None)
        .unwrap()
        .to_vec();
    let errors: Vec<_> = (0..stop.len())
        .filter_map(|place| {
            let mut frame = stop.clone();
            frame[place] = if frame[place] == 1 { 9 } else { return None };
            first_frame(&frame, |frame| AnswerView::parse(frame.data()).err())?
        })
        .collect();
    assert_eq!(
        errors,
        [InvalidFrame::UnknownKind {
            field: "action",
            kind: 9
        }]
    );
}

#[test]
fn a_question_about_nothing_is_refused() {
    let mut writer = FrameWriter::new();
    // An answer without a result is the same empty table.
    let nothing = extra_info::write_answer(&mut writer, None).unwrap();
    let refused = first_frame(nothing, |frame| {
        extra_info::QuestionView::parse(frame.data()).unwrap_err()
    });
    assert_eq!(refused, Some(InvalidFrame::Missing { field: "info" }));
}

#[test]
fn the_reason_of_a_refusal_fits_one_line() {
    let mut writer = FrameWriter::new();
    let mut frame = prepare_conf::write_request(&mut writer, [], Some(b"key"))
        .unwrap()
        .to_vec();
    let key = frame.windows(3).position(|bytes| bytes == b"key").unwrap();
    frame[key - 4] = 200;
    let refused = first_frame(&frame, |frame| {
        prepare_conf::RequestView::parse(frame.data())
            .unwrap_err()
            .to_string()
    });
    let refused = refused.unwrap();
    assert!(
        refused.starts_with("the peer sent a broken message: "),
        "{refused}"
    );
    assert!(
        refused.contains("key") && !refused.contains('\n'),
        "{refused}"
    );
}

#[test]
fn methods_have_the_numbers_of_the_protocol() {
    let names = "GET HEAD POST PUT DELETE MKCOL COPY MOVE OPTIONS PROPFIND PROPPATCH LOCK UNLOCK PATCH TRACE";
    for (number, name) in (0_u8..).zip(names.split(' ')) {
        let method = Method::try_from(number).unwrap();
        assert_eq!((method.as_str(), method as u8), (name, number));
        assert_eq!(name.parse(), Ok(method));
    }
    assert!(Method::try_from(15).is_err());
    assert!("get".parse::<Method>().is_err());
}

#[test]
fn a_method_of_unknown_number_is_read_as_none() {
    let mut writer = FrameWriter::new();
    let request = http_req_call::Request {
        id: 1,
        src_ip: None,
        method: Method::Trace,
        path: b"/",
        args: [],
        headers: [],
        conf_token: 0,
    };
    let mut frame = http_req_call::write_request(&mut writer, request)
        .unwrap()
        .to_vec();
    let trace = frame
        .iter()
        .rposition(|byte| *byte == Method::Trace as u8)
        .unwrap();
    frame[trace] = 15;
    first_frame(&frame, |frame| {
        let view = http_req_call::RequestView::parse(frame.data()).unwrap();
        assert_eq!((view.method(), view.method_byte()), (None, 15));
    })
    .unwrap();
}
