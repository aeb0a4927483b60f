//! JSON text to a JSON object, with every name that stands twice in one object.
//!
//! serde_json keeps the last of two equal names and says nothing; in a file that people write,
//! the first is as likely to be the one that they look at.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::{MAX_FILE_BYTES, MetadataError};
use crate::plugin::schema::without_position;

/// A file's object, and the places of names that stand there twice, like `source.path`.
pub(super) struct Document {
    pub(super) fields: Map<String, Value>,
    pub(super) duplicates: Vec<String>,
}

pub(super) fn read(file: &[u8]) -> Result<Document, MetadataError> {
    if file.len() as u64 > MAX_FILE_BYTES {
        return Err(MetadataError::TooLarge);
    }
    let value = serde_json::from_slice(file).map_err(|error| MetadataError::NotJson {
        reason: without_position(&error),
        line: error.line(),
        column: error.column(),
    })?;
    let Value::Object(fields) = value else {
        return Err(MetadataError::NotJson {
            reason: "the file is not one JSON object".to_owned(),
            line: 1,
            column: 1,
        });
    };
    let mut duplicates = Vec::new();
    let mut reader = serde_json::Deserializer::from_slice(file);
    let finder = Finder {
        place: String::new(),
        duplicates: &mut duplicates,
    };
    // The same bytes have just been read once: they are JSON.
    let _ = finder.deserialize(&mut reader);
    Ok(Document { fields, duplicates })
}

/// Walks a value and notes the names that it meets twice in one object.
struct Finder<'a> {
    place: String,
    duplicates: &'a mut Vec<String>,
}

impl Finder<'_> {
    fn at(&mut self, step: &str) -> Finder<'_> {
        let place = if self.place.is_empty() {
            step.to_owned()
        } else {
            format!("{}.{step}", self.place)
        };
        Finder {
            place,
            duplicates: self.duplicates,
        }
    }
}

impl<'de> DeserializeSeed<'de> for Finder<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Finder<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        let mut seen = std::collections::HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            let inner = self.at(&name);
            if !seen.insert(name) {
                let place = inner.place.clone();
                inner.duplicates.push(place);
                map.next_value::<IgnoredAny>()?;
            } else {
                map.next_value_seed(inner)?;
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut sequence: A) -> Result<(), A::Error> {
        let mut index = 0;
        while sequence
            .next_element_seed(self.at(&index.to_string()))?
            .is_some()
        {
            index += 1;
        }
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}
