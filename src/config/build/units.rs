//! Durations and sizes: `1h30m`, `16KiB`.

use std::fmt::Write as _;
use std::time::Duration;

const DURATION_UNITS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
const SIZE_UNITS: [(&str, u64); 4] = [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

/// Why a text is not a quantity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum UnitError {
    /// No digits where a number should begin.
    NoNumber,
    /// A number and nothing after it.
    NoUnit,
    /// Something after it that is no unit.
    UnknownUnit(String),
    /// More than fits.
    TooLarge,
}

/// A duration of one or several numbers with units.
pub(super) fn duration(text: &str) -> Result<Duration, UnitError> {
    let mut rest = text.trim();
    let mut millis: u64 = 0;
    loop {
        let (number, unit, after) = part(rest)?;
        if unit.is_empty() {
            return Err(UnitError::NoUnit);
        }
        millis = scaled(number, unit, &DURATION_UNITS)?.checked_add(millis).ok_or(UnitError::TooLarge)?;
        if after.is_empty() {
            return Ok(Duration::from_millis(millis));
        }
        rest = after;
    }
}

/// A number of bytes, with or without unit.
pub(super) fn size(text: &str) -> Result<u64, UnitError> {
    let (number, unit, after) = part(text.trim())?;
    if !after.is_empty() {
        return Err(UnitError::UnknownUnit(format!("{unit}{after}")));
    }
    scaled(number, if unit.is_empty() { "B" } else { unit }, &SIZE_UNITS)
}

/// A share, in millionths: at most the whole, in steps of 0.0001 %.
pub(super) fn share(text: &str) -> Option<u32> {
    let number = text.trim().strip_suffix('%')?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let all_digits = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if !all_digits(whole) || !all_digits(fraction) || fraction.len() > 4 {
        return None;
    }
    let millionths = whole.parse::<u32>().ok()?.checked_mul(10_000)?;
    let share = millionths.checked_add(format!("{fraction:0<4}").parse().ok()?)?;
    (share <= 1_000_000).then_some(share)
}

/// A duration as the file would have it.
pub(super) fn show_duration(duration: Duration) -> String {
    let mut millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut text = String::new();
    for (unit, factor) in DURATION_UNITS.iter().rev() {
        if millis >= *factor {
            let _ = write!(text, "{}{unit}", millis / factor);
            millis %= factor;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// A size as the file would have it.
pub(super) fn show_size(bytes: u64) -> String {
    let fits = |(_, factor): &&(&str, u64)| bytes >= *factor && bytes.is_multiple_of(*factor);
    match SIZE_UNITS.iter().rev().find(fits) {
        Some((unit, factor)) => format!("{}{unit}", bytes / factor),
        None => format!("{bytes}B"),
    }
}

/// A number, the letters after it, and the rest.
fn part(text: &str) -> Result<(&str, &str, &str), UnitError> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, rest) = text.split_at_checked(digits).unwrap_or((text, ""));
    if number.is_empty() {
        return Err(UnitError::NoNumber);
    }
    let letters = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
    let (unit, after) = rest.split_at_checked(letters).unwrap_or((rest, ""));
    Ok((number, unit, after))
}

fn scaled(number: &str, unit: &str, units: &[(&str, u64)]) -> Result<u64, UnitError> {
    let known = units.iter().find(|(name, _)| *name == unit);
    let (_, factor) = known.ok_or_else(|| UnitError::UnknownUnit(unit.to_owned()))?;
    number.parse::<u64>().ok().and_then(|number| number.checked_mul(*factor)).ok_or(UnitError::TooLarge)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Duration, UnitError, duration, show_duration, show_size, size};

    #[test]
    fn durations() {
        for (text, millis) in
            [("500ms", 500), ("30s", 30_000), ("1h30m", 5_400_000), ("365d", 31_536_000_000), ("0s", 0)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        let unknown = |unit: &str| UnitError::UnknownUnit(unit.to_owned());
        for (text, error) in [
            ("", UnitError::NoNumber),
            ("s", UnitError::NoNumber),
            ("-1s", UnitError::NoNumber),
            ("30", UnitError::NoUnit),
            ("1h30", UnitError::NoUnit),
            ("30 s", unknown(" s")),
            ("1.5s", unknown(".")),
            ("30sec", unknown("sec")),
            ("99999999999999999999s", UnitError::TooLarge),
            ("18446744073709551615d", UnitError::TooLarge),
        ] {
            assert_eq!(duration(text), Err(error), "{text}");
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [("0", 0), ("8192", 8192), ("16KiB", 16_384), ("1MiB", 1_048_576), ("5B", 5)] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["16KB", "16k", "KiB", "1KiB1KiB", "-1", "99999999999GiB"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(millis in 0_u64..10_000_000_000, bytes in 0_u64..1 << 40) {
            let time = Duration::from_millis(millis);
            prop_assert_eq!(duration(&show_duration(time)), Ok(time));
            prop_assert_eq!(size(&show_size(bytes)), Ok(bytes));
        }

        #[test]
        fn no_text_makes_them_panic(text in "\\PC{0,12}") {
            let _ = duration(&text);
            let _ = size(&text);
        }
    }
}
