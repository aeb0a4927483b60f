//! Reading the lists of names and values of a call: headers and arguments.

use crate::abi::{CallObject, List};

/// The values of one name, in the order in which they came.
#[derive(Clone)]
pub struct Values<'a> {
    call: &'a CallObject,
    list: List,
    name: Vec<u8>,
    next: usize,
}

impl<'a> Values<'a> {
    pub(crate) fn new(call: &'a CallObject, list: List, name: &[u8]) -> Self {
        Self {
            call,
            list,
            name: name.to_vec(),
            next: 0,
        }
    }
}

impl<'a> Iterator for Values<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let index = self
            .call
            .find(self.list, self.name.as_slice().into(), self.next)
            .into_option()?;
        self.next = index + 1;
        Some(value_at(self.call, self.list, index)?.unwrap_or_default())
    }
}

/// The first value of a name; an entry without a value gives an empty one.
pub(crate) fn first<'a>(call: &'a CallObject, list: List, name: &[u8]) -> Option<&'a [u8]> {
    let index = call.find(list, name.into(), 0).into_option()?;
    Some(value_at(call, list, index)?.unwrap_or_default())
}

/// All entries in order.
pub(crate) fn entries(
    call: &CallObject,
    list: List,
) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
    (0..call.count(list)).filter_map(move |index| {
        let field = call.at(list, index).into_option()?;
        Some((
            field.name.as_slice(),
            field.value.into_option().map(|value| value.as_slice()),
        ))
    })
}

fn value_at(call: &CallObject, list: List, index: usize) -> Option<Option<&[u8]>> {
    let field = call.at(list, index).into_option()?;
    Some(field.value.into_option().map(|value| value.as_slice()))
}
