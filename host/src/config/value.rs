//! From a written value to a checked one: numbers, sizes, durations, permissions, choices.
//!
//! Each function gets what a source said and gives the value or the reason against it, in words
//! that follow the name of the source. Nothing here knows which setting it reads.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

/// A value as a source wrote it. Flags and environment have only text; a file has types.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Written {
    Text(String),
    Number(i64),
    Switch(bool),
}

impl Written {
    /// The value as text, whatever its type in the source was.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Number(number) => number.to_string(),
            Self::Switch(switch) => switch.to_string(),
        }
    }
}

pub(crate) fn number(written: &Written, range: RangeInclusive<u64>) -> Result<u64, String> {
    let text = written.text();
    let number = text
        .parse()
        .map_err(|_| format!("`{text}` is not a whole number"))?;
    within(number, &range, &text, u64::to_string)
}

/// A number of bytes, plain or with `KiB`, `MiB` or `GiB`.
pub(crate) fn bytes(written: &Written, range: RangeInclusive<u64>) -> Result<u64, String> {
    let text = written.text();
    let malformed = || format!("`{text}` is not a number of bytes such as 65536, 64KiB or 512MiB");
    let (digits, unit) = split_unit(&text);
    let factor: u64 = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(malformed()),
    };
    let bytes = digits
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(factor))
        .ok_or_else(malformed)?;
    within(bytes, &range, &text, |bytes| format!("{bytes} bytes"))
}

/// A duration with its unit. A bare number is refused: of 700 nobody can tell which unit is meant.
pub(crate) fn duration(
    written: &Written,
    range: RangeInclusive<Duration>,
) -> Result<Duration, String> {
    let text = written.text();
    let malformed = || format!("`{text}` is not a duration with its unit such as 700ms, 10s or 2m");
    let (digits, unit) = split_unit(&text);
    let microseconds: u64 = match unit {
        "us" => 1,
        "ms" => 1_000,
        "s" => 1_000_000,
        "m" => 60_000_000,
        _ => return Err(malformed()),
    };
    let duration = digits
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(microseconds))
        .map(Duration::from_micros)
        .ok_or_else(malformed)?;
    within(duration, &range, &text, |duration| format!("{duration:?}"))
}

/// Permissions of a file in octal digits. A number of the file is refused, because TOML's own
/// reading of `0o666` and `666` differs from what people mean.
pub(crate) fn mode(written: &Written) -> Result<u32, String> {
    let malformed = |text: &str| {
        format!(
            "`{text}` is not a file mode; write it in octal digits and, in a file, quoted: \"0666\""
        )
    };
    let Written::Text(text) = written else {
        return Err(malformed(&written.text()));
    };
    if !(3..=4).contains(&text.len()) || !text.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(malformed(text));
    }
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o777 => Ok(mode),
        _ => Err(malformed(text)),
    }
}

pub(crate) fn switch(written: &Written) -> Result<bool, String> {
    match written.text().as_str() {
        "true" => Ok(true),
        "false" => Ok(false),
        other => Err(format!("`{other}` is neither `true` nor `false`")),
    }
}

/// One of a few words.
pub(crate) fn choice<T: Copy>(written: &Written, choices: &[(&str, T)]) -> Result<T, String> {
    let text = written.text();
    choices
        .iter()
        .find(|(word, _)| *word == text)
        .map(|(_, value)| *value)
        .ok_or_else(|| {
            let words: Vec<_> = choices
                .iter()
                .map(|(word, _)| format!("`{word}`"))
                .collect();
            format!("`{text}` is not one of {}", words.join(", "))
        })
}

/// A path, made absolute with the working directory, which the gateway sets to its own home.
pub(crate) fn path(written: &Written) -> Result<PathBuf, String> {
    let Written::Text(text) = written else {
        return Err(format!("`{}` is not a path", written.text()));
    };
    std::path::absolute(text).map_err(|error| format!("`{text}` is not a usable path: {error}"))
}

fn within<T: PartialOrd>(
    value: T,
    range: &RangeInclusive<T>,
    text: &str,
    show: impl Fn(&T) -> String,
) -> Result<T, String> {
    if range.contains(&value) {
        return Ok(value);
    }
    Err(format!(
        "`{text}` is out of range: from {} to {}",
        show(range.start()),
        show(range.end())
    ))
}

fn split_unit(text: &str) -> (&str, &str) {
    let digits = text
        .find(|character: char| !character.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    (number, unit.trim_start())
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        reason = "a failed expectation is the test's result"
    )]
    use super::*;

    fn text(text: &str) -> Written {
        Written::Text(text.to_owned())
    }

    #[test]
    fn sizes_have_binary_units() {
        let all = 0..=u64::MAX;
        for (written, expected) in [
            ("0", 0),
            ("17", 17),
            ("17B", 17),
            ("64KiB", 65_536),
            ("512 MiB", 536_870_912),
            ("1GiB", 1 << 30),
        ] {
            assert_eq!(
                bytes(&text(written), all.clone()),
                Ok(expected),
                "{written}"
            );
        }
        for written in [
            "",
            "MiB",
            "1MB",
            "-1",
            "1.5MiB",
            "99999999999999999999",
            "20000000000GiB",
        ] {
            assert!(bytes(&text(written), all.clone()).is_err(), "{written}");
        }
    }

    #[test]
    fn durations_need_a_unit_and_stay_in_their_range() {
        let range = Duration::from_millis(1)..=Duration::from_secs(60);
        assert_eq!(
            duration(&text("700ms"), range.clone()),
            Ok(Duration::from_millis(700))
        );
        assert_eq!(
            duration(&text("1m"), range.clone()),
            Ok(Duration::from_secs(60))
        );
        let bare = duration(&Written::Number(700), range.clone()).unwrap_err();
        assert!(bare.contains("unit"), "{bare}");
        let long = duration(&text("2m"), range).unwrap_err();
        assert_eq!(long, "`2m` is out of range: from 1ms to 60s");
    }

    #[test]
    fn a_mode_is_octal_text() {
        assert_eq!(mode(&text("0666")), Ok(0o666));
        assert_eq!(mode(&text("660")), Ok(0o660));
        for wrong in [
            text("0888"),
            text("rw-"),
            text("7"),
            text("1777"),
            Written::Number(438),
        ] {
            let reason = mode(&wrong).unwrap_err();
            assert!(reason.contains("\"0666\""), "{reason}");
        }
    }

    #[test]
    fn a_wrong_choice_is_told_the_right_ones() {
        let choices = [("text", 1), ("json", 2)];
        assert_eq!(choice(&text("json"), &choices), Ok(2));
        assert_eq!(
            choice(&text("xml"), &choices).unwrap_err(),
            "`xml` is not one of `text`, `json`"
        );
    }
}
