//! The values that plugins leave for one another on a call, bounded as in the host.

use super::world::{Values, World};
use crate::abi::ValueStatus;

/// Values of one call.
const MAX_VALUES: usize = 64;

/// Bytes of all values of one call together, names included.
const MAX_VALUE_BYTES: usize = 64 << 10;

#[derive(Debug, Clone)]
struct Value {
    name: Vec<u8>,
    value: Vec<u8>,
    is_kept: bool,
}

/// The values of one call.
#[derive(Debug, Clone, Default)]
pub(super) struct CallValues {
    values: Vec<Value>,
    is_loaded: bool,
}

impl CallValues {
    pub(super) fn get(&self, name: &[u8]) -> Option<&[u8]> {
        let found = self.values.iter().find(|value| value.name == name);
        found.map(|found| found.value.as_slice())
    }

    pub(super) fn set(&mut self, name: &[u8], value: &[u8], keep: bool) -> ValueStatus {
        let others = self.values.iter().filter(|other| other.name != name);
        let bytes = |value: &Value| value.name.len() + value.value.len();
        let (count, held) = others.fold((0, 0), |(count, held), other| {
            (count + 1, held + bytes(other))
        });
        if count >= MAX_VALUES || held + name.len() + value.len() > MAX_VALUE_BYTES {
            return ValueStatus::FULL;
        }
        let was_kept = self.remove(name);
        self.values.push(Value {
            name: name.to_vec(),
            value: value.to_vec(),
            is_kept: keep || was_kept,
        });
        ValueStatus::DONE
    }

    /// Removes a value; whether it was kept.
    pub(super) fn remove(&mut self, name: &[u8]) -> bool {
        let mut removed = self.values.extract_if(.., |value| value.name == name);
        removed.next().is_some_and(|removed| removed.is_kept)
    }

    /// Adds what earlier calls of the request have kept, once.
    pub(super) fn load(&mut self, kept: Values) {
        if !std::mem::replace(&mut self.is_loaded, true) {
            for (name, value) in kept {
                if self.get(&name).is_none() {
                    self.set(&name, &value, true);
                }
            }
        }
    }

    /// Leaves what is kept to the request's next call.
    pub(super) fn leave(&self, world: &World, request_id: &[u8]) {
        if self.is_loaded {
            let kept = self.values.iter().filter(|value| value.is_kept);
            let kept = kept.map(|value| (value.name.clone(), value.value.clone()));
            world.keep(request_id, kept.collect());
        }
    }
}
