//! JSON numbers as what they are: whole ones exactly, however they are written, the others as doubles.

/// A number in JSON's grammar, taken apart.
pub(super) struct Decimal<'a> {
    negative: bool,
    whole: &'a [u8],
    fraction: &'a [u8],
    /// Saturated: beyond a thousand digits nothing is told apart.
    exponent: i64,
    text: &'a str,
}

/// The number is not what the field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unfit {
    NotWhole,
    OutOfRange,
}

impl<'a> Decimal<'a> {
    /// None if `text` is not a number as JSON writes it: `-0.5e+3`, without a leading zero or plus.
    pub(super) fn read(text: &'a [u8]) -> Option<Self> {
        let (negative, rest) = match text {
            [b'-', rest @ ..] => (true, rest),
            _ => (false, text),
        };
        let (whole, rest) = digits(rest);
        if whole.is_empty() || (whole.len() > 1 && whole[0] == b'0') {
            return None;
        }
        let (fraction, rest) = match rest {
            [b'.', rest @ ..] => match digits(rest) {
                ([], _) => return None,
                split => split,
            },
            _ => (&[][..], rest),
        };
        let exponent = match rest {
            [] => 0,
            [b'e' | b'E', b'-', rest @ ..] => -exponent(rest)?,
            [b'e' | b'E', b'+', rest @ ..] | [b'e' | b'E', rest @ ..] => exponent(rest)?,
            _ => return None,
        };
        Some(Self { negative, whole, fraction, exponent, text: std::str::from_utf8(text).ok()? })
    }

    /// The number, if it is whole and lies in `low..=high`, bounds of 64 bits at most.
    pub(super) fn integer(&self, low: i128, high: i128) -> Result<i128, Unfit> {
        let digits = || self.whole.iter().chain(self.fraction);
        let written = self.whole.len() + self.fraction.len();
        let kept = written - digits().rev().take_while(|&&digit| digit == b'0').count();
        if kept == 0 {
            return Ok(0);
        }
        // How many zeros follow the last digit that is none: below 0, that digit stands behind the point.
        let zeros = (self.whole.len() as i64 - kept as i64).saturating_add(self.exponent);
        if zeros < 0 {
            return Err(Unfit::NotWhole);
        }
        let significant = digits().take(kept).skip_while(|&&digit| digit == b'0');
        // 2^64 has 20 digits: past them the number only grows.
        let shown = significant.clone().take(21).count() as i64;
        if shown.saturating_add(zeros) > 20 {
            return Err(Unfit::OutOfRange);
        }
        let significant = significant.fold(0, |number, digit| number * 10 + i128::from(digit - b'0'));
        let number = (0..zeros).fold(significant, |number, _| number * 10);
        let number = if self.negative { -number } else { number };
        if (low..=high).contains(&number) { Ok(number) } else { Err(Unfit::OutOfRange) }
    }

    /// The nearest double, if there is one.
    pub(super) fn double(&self) -> Result<f64, Unfit> {
        match self.text.parse::<f64>() {
            Ok(double) if double.is_finite() => Ok(double),
            _ => Err(Unfit::OutOfRange),
        }
    }
}

fn digits(text: &[u8]) -> (&[u8], &[u8]) {
    text.split_at(text.iter().take_while(|byte| byte.is_ascii_digit()).count())
}

fn exponent(text: &[u8]) -> Option<i64> {
    match digits(text) {
        ([], _) => None,
        (digits, []) => Some(
            digits
                .iter()
                .fold(0, |exponent: i64, digit| exponent.saturating_mul(10).saturating_add(i64::from(digit - b'0'))),
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn integer(text: &str, low: i128, high: i128) -> Result<i128, Unfit> {
        Decimal::read(text.as_bytes()).unwrap_or_else(|| panic!("{text} is a number")).integer(low, high)
    }

    #[test]
    fn whole_numbers_are_exact_however_they_are_written() {
        let (low, high) = (i128::from(i64::MIN), i128::from(u64::MAX));
        for (text, number) in [
            ("0", 0),
            ("-0", 0),
            ("0.000", 0),
            ("0e99999999999999999999999", 0),
            ("1e3", 1_000),
            ("1E+3", 1_000),
            ("1.0", 1),
            ("1.50e1", 15),
            ("100e-2", 1),
            ("0.00120e5", 120),
            ("18446744073709551615", u64::MAX.into()),
            ("1844674407370955161.5e1", u64::MAX.into()),
            ("18446744073709551615.0000000000000000000000000", u64::MAX.into()),
            ("-9223372036854775808", i64::MIN.into()),
            ("9007199254740993.0", 9_007_199_254_740_993),
        ] {
            assert_eq!(integer(text, low, high), Ok(number), "{text}");
        }
        for (text, unfit) in [
            ("0.5", Unfit::NotWhole),
            ("1e-1", Unfit::NotWhole),
            ("1e-99999999999999999999999", Unfit::NotWhole),
            ("18446744073709551616", Unfit::OutOfRange),
            ("-9223372036854775809", Unfit::OutOfRange),
            ("1e20", Unfit::OutOfRange),
            ("1e400", Unfit::OutOfRange),
            ("1e99999999999999999999999", Unfit::OutOfRange),
            ("100000000000000000000000", Unfit::OutOfRange),
        ] {
            assert_eq!(integer(text, low, high), Err(unfit), "{text}");
        }
        assert_eq!(integer("-1", 0, high), Err(Unfit::OutOfRange));
        assert_eq!(integer(&"9".repeat(1_000_000), low, high), Err(Unfit::OutOfRange));
        assert_eq!(integer(&format!("1{}e-1000000", "0".repeat(1_000_000)), low, high), Ok(1));
    }

    #[test]
    fn what_json_does_not_write_is_no_number() {
        for text in [
            "", "-", "+1", "01", "-01", "1.", ".5", "1e", "1e+", "0x10", "1_000", "1 ", " 1", "NaN", "1.5.5", "1e5e5",
            "--1",
        ] {
            assert!(Decimal::read(text.as_bytes()).is_none(), "{text:?}");
        }
    }

    #[test]
    fn doubles_beyond_the_range_are_unfit() {
        let double = |text: &str| Decimal::read(text.as_bytes()).unwrap().double();
        assert_eq!(double("1.5e3"), Ok(1500.0));
        assert_eq!(double("1e-400"), Ok(0.0));
        assert_eq!(double("5e-324"), Ok(5e-324));
        assert_eq!(double("1e400"), Err(Unfit::OutOfRange));
        assert_eq!(double(&"9".repeat(1_000_000)), Err(Unfit::OutOfRange));
    }
}
