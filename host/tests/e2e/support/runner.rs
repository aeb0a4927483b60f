//! A runner that replays what a recorded one said, frame by frame, whoever the gateway is.

use std::{
    collections::VecDeque,
    io::{Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use parking_lot::Mutex;
use plugin_proto::{FrameBuffer, FrameWriter};
use tempfile::TempDir;

use crate::{
    capture::RecordedFrame,
    message::{Message, Side},
};

/// A runner on a socket of its own.
pub(crate) struct Runner {
    directory: TempDir,
    shared: Arc<Mutex<Shared>>,
}

/// What the gateway said, and on which connection: they count in the order of being accepted.
pub(crate) type Said = Vec<(usize, Message)>;

#[derive(Default)]
struct Shared {
    script: VecDeque<RecordedFrame>,
    /// Whether configurations are prepared without being in the script.
    prepares: bool,
    said: Said,
}

impl Runner {
    pub(crate) fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(socket_in(directory.path())).unwrap();
        let shared: Arc<Mutex<Shared>> = Arc::default();
        thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                for (number, stream) in listener.incoming().enumerate() {
                    let shared = Arc::clone(&shared);
                    thread::spawn(move || serve(number, stream.unwrap(), &shared));
                }
            }
        });
        Self { directory, shared }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        socket_in(self.directory.path())
    }

    /// What is to be said next: after each frame of the gateway's the runner's that follow it in
    /// the recording. A frame of the gateway's beyond it closes the connection.
    pub(crate) fn play(&self, frames: &[RecordedFrame]) {
        let mut shared = self.shared.lock();
        shared.prepares = false;
        shared.script = frames.iter().cloned().collect();
        shared.said.clear();
    }

    /// The same for one call: its route's configuration is prepared by the way, where it is asked
    /// for, and is not in what the gateway said.
    pub(crate) fn answer(&self, answers: &[RecordedFrame]) {
        let call = RecordedFrame {
            connection: 0,
            from: Side::Gateway,
            type_byte: 0,
            data: Vec::new(),
        };
        self.play(&[std::slice::from_ref(&call), answers].concat());
        self.shared.lock().prepares = true;
    }

    /// What the gateway has said since then.
    pub(crate) fn said(&self) -> Said {
        self.shared.lock().said.clone()
    }
}

fn serve(number: usize, mut stream: UnixStream, shared: &Mutex<Shared>) {
    let mut incoming = FrameBuffer::new();
    loop {
        incoming.consume();
        while incoming.frame().is_none() {
            match stream.read(incoming.spare()) {
                Ok(0) | Err(_) => return,
                Ok(read) => incoming.filled(read),
            }
        }
        let frame = incoming.frame().unwrap();
        let frame_type = frame.frame_type().unwrap();
        let message = Message::read(Side::Gateway, frame_type, frame.data()).unwrap();
        let mut shared = shared.lock();
        if shared.prepares && matches!(message, Message::Prepare { .. }) {
            let token = said_by_runner(&Message::Token { conf_token: 1 });
            stream.write_all(&token.bytes()).unwrap();
            continue;
        }
        shared.said.push((number, message));
        let Some(RecordedFrame {
            from: Side::Gateway,
            ..
        }) = shared.script.pop_front()
        else {
            return;
        };
        while let Some(frame) = shared.script.front() {
            if frame.from == Side::Gateway {
                break;
            }
            if stream.write_all(&frame.bytes()).is_err() {
                return;
            }
            shared.script.pop_front();
        }
    }
}

/// A message of a runner's, as if it had been recorded.
pub(crate) fn said_by_runner(message: &Message) -> RecordedFrame {
    let mut writer = FrameWriter::new();
    let frame = message.write(&mut writer).unwrap().unwrap();
    RecordedFrame {
        connection: 0,
        from: Side::Runner,
        type_byte: frame[0],
        data: frame[4..].to_vec(),
    }
}

fn socket_in(directory: &Path) -> PathBuf {
    directory.join("s")
}
