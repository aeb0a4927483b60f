//! What a plugin sees of an execution, and what it leaves: label, values, time, cancellation.
//!
//! The plugin owns it while it runs, and may keep using it after the host has stopped waiting. Its
//! methods never panic.

use std::{collections::BTreeMap, time::Duration};

use plugin_abi::abi::{
    ContextObject, FfiFuture, HostContext, HostContext_TO, HttpFailure, HttpText, OwnedField,
    ROption, RResult, RSlice, RStr, RVec, ReplyParts, RespondStatus, TD_CanDowncast, ValueStatus,
};
use tokio::{sync::watch, time::Instant};

use super::{
    Order,
    exchange::{Answered, Exchange},
};

/// Values of one execution, at most.
pub const MAX_VALUES: usize = 256;

/// Bytes of the values of one execution, names included, at most.
pub const MAX_VALUE_BYTES: usize = 1 << 20;

/// Values by name, each as JSON text.
pub type Values = BTreeMap<String, Vec<u8>>;

/// An execution, as the plugin has it.
#[derive(Debug)]
pub struct Executing {
    label: String,
    deadline: Instant,
    cancelled: watch::Receiver<bool>,
    /// In the order of their names.
    values: Vec<Value>,
    bytes: usize,
    exchange: Option<Exchange>,
}

#[derive(Debug)]
struct Value {
    name: String,
    json: Vec<u8>,
    /// Whether the plugin has set it.
    is_set: bool,
}

impl Executing {
    /// An execution that begins with these values.
    pub(super) fn new(order: Order, deadline: Instant, cancelled: watch::Receiver<bool>) -> Self {
        let values: Vec<Value> = order
            .values
            .into_iter()
            .map(|(name, json)| Value {
                name,
                json,
                is_set: false,
            })
            .collect();
        Self {
            label: order.label,
            exchange: order.exchange,
            deadline,
            cancelled,
            bytes: values.iter().map(|v| v.name.len() + v.json.len()).sum(),
            values,
        }
    }

    /// Hands it to a plugin.
    pub(super) fn into_object(self) -> ContextObject {
        HostContext_TO::from_value(self, TD_CanDowncast)
    }

    /// Takes it back; none where a plugin returned something else.
    pub(super) fn from_object(object: ContextObject) -> Option<Self> {
        let own = object.obj.downcast_into::<Self>().ok()?;
        Some(plugin_abi::abi::RBox::into_inner(own))
    }

    /// What the plugin has set, and what it has replied in one piece.
    pub(super) fn into_set(self) -> (Values, Option<ReplyParts>) {
        let set = self.values.into_iter().filter(|value| value.is_set);
        let set = set.map(|value| (value.name, value.json)).collect();
        let answered = self.exchange.and_then(|exchange| exchange.answered);
        let reply = match answered {
            Some(Answered::Whole(reply)) => Some(reply),
            Some(Answered::Streams(_)) | None => None,
        };
        (set, reply)
    }

    fn place_of(&self, name: &str) -> Result<usize, usize> {
        self.values
            .binary_search_by(|value| value.name.as_str().cmp(name))
    }
}

impl HostContext for Executing {
    fn label(&self) -> RStr<'_> {
        self.label.as_str().into()
    }

    fn nanoseconds_left(&self) -> u64 {
        let left: Duration = self.deadline.saturating_duration_since(Instant::now());
        u64::try_from(left.as_nanos()).unwrap_or(u64::MAX)
    }

    fn is_cancelled(&self) -> bool {
        *self.cancelled.borrow()
    }

    fn cancelled(&self) -> FfiFuture<()> {
        let mut cancelled = self.cancelled.clone();
        FfiFuture::new(async move {
            // An error means that the host has let go of it.
            let _ = cancelled.wait_for(|cancelled| *cancelled).await;
        })
    }

    fn count(&self) -> usize {
        self.values.len()
    }

    fn name_at(&self, index: usize) -> ROption<RStr<'_>> {
        let value = self.values.get(index);
        value.map(|value| value.name.as_str().into()).into()
    }

    fn value(&self, name: RStr<'_>) -> ROption<RSlice<'_, u8>> {
        let place = self.place_of(name.as_str()).ok();
        place
            .map(|place| self.values[place].json.as_slice().into())
            .into()
    }

    fn set_value(&mut self, name: RStr<'_>, value: ROption<RVec<u8>>) -> ValueStatus {
        let place = self.place_of(name.as_str());
        let before = place.map_or(0, |place| name.len() + self.values[place].json.len());
        let ROption::RSome(json) = value else {
            if let Ok(place) = place {
                self.values.remove(place);
                self.bytes -= before;
            }
            return ValueStatus::DONE;
        };
        let bytes = self.bytes - before + name.len() + json.len();
        if bytes > MAX_VALUE_BYTES || (place.is_err() && self.values.len() >= MAX_VALUES) {
            return ValueStatus::FULL;
        }
        self.bytes = bytes;
        let value = Value {
            name: name.into(),
            json: json.into(),
            is_set: true,
        };
        match place {
            Ok(place) => self.values[place] = value,
            Err(place) => self.values.insert(place, value),
        }
        ValueStatus::DONE
    }

    fn http_text(&self, text: HttpText) -> ROption<RSlice<'_, u8>> {
        let text = self
            .exchange
            .as_ref()
            .and_then(|exchange| exchange.text(text));
        text.map(Into::into).into()
    }

    fn http_headers(&self) -> RSlice<'_, OwnedField> {
        let exchange = self.exchange.as_ref();
        exchange.map_or(RSlice::EMPTY, |exchange| exchange.headers.as_slice().into())
    }

    fn http_parameters(&self) -> RSlice<'_, OwnedField> {
        let exchange = self.exchange.as_ref();
        exchange.map_or(RSlice::EMPTY, |exchange| {
            exchange.parameters.as_slice().into()
        })
    }

    fn http_chunk(&self) -> FfiFuture<RResult<ROption<RVec<u8>>, HttpFailure>> {
        match &self.exchange {
            Some(exchange) => (exchange.next_piece)(),
            None => FfiFuture::new(std::future::ready(RResult::ROk(ROption::RNone))),
        }
    }

    fn http_respond(&mut self, reply: ReplyParts, streams: bool) -> RespondStatus {
        match &mut self.exchange {
            Some(exchange) => exchange.respond(reply, streams),
            None => RespondStatus::NO_REQUEST,
        }
    }

    fn http_send(&self, piece: RVec<u8>) -> FfiFuture<RespondStatus> {
        match &self.exchange {
            Some(exchange) => exchange.send(piece),
            None => FfiFuture::new(std::future::ready(RespondStatus::NO_REQUEST)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn executing(values: Values) -> Executing {
        let (_, cancelled) = watch::channel(false);
        let order = Order {
            values,
            ..Order::default()
        };
        Executing::new(order, Instant::now(), cancelled)
    }

    fn set(executing: &mut Executing, name: &str, bytes: usize) -> ValueStatus {
        let json = vec![b'1'; bytes];
        executing.set_value(name.into(), ROption::RSome(json.into()))
    }

    #[test]
    fn an_execution_has_so_many_values_and_bytes_and_no_more() {
        let mut many = executing(Values::new());
        for number in 0..MAX_VALUES {
            assert_eq!(set(&mut many, &number.to_string(), 1), ValueStatus::DONE);
        }
        assert_eq!(set(&mut many, "one more", 1), ValueStatus::FULL);
        assert_eq!(set(&mut many, "7", 2), ValueStatus::DONE, "in its place");
        let _ = many.set_value("8".into(), ROption::RNone);
        assert_eq!(set(&mut many, "one more", 1), ValueStatus::DONE);

        let mut long = executing(Values::from([("a".to_owned(), vec![b'1'; 9])]));
        assert_eq!(set(&mut long, "b", MAX_VALUE_BYTES - 10), ValueStatus::FULL);
        assert_eq!(set(&mut long, "b", MAX_VALUE_BYTES - 11), ValueStatus::DONE);
        let _ = long.set_value("a".into(), ROption::RNone);
        assert_eq!(set(&mut long, "b", MAX_VALUE_BYTES - 1), ValueStatus::DONE);
    }

    #[test]
    fn what_the_plugin_has_set_comes_back_and_nothing_else() {
        let given = Values::from([
            ("in".to_owned(), b"1".to_vec()),
            ("changed".to_owned(), b"1".to_vec()),
        ]);
        let mut executing = executing(given);
        let _ = set(&mut executing, "changed", 2);
        let _ = set(&mut executing, "out", 1);
        let _ = set(&mut executing, "gone", 1);
        let _ = executing.set_value("gone".into(), ROption::RNone);
        let back = Executing::from_object(executing.into_object());
        let back = back.map(|executing| executing.into_set().0);
        let expected = Values::from([
            ("changed".to_owned(), b"11".to_vec()),
            ("out".to_owned(), b"1".to_vec()),
        ]);
        assert_eq!(back, Some(expected));
    }
}
