//! When a certificate ends.
//!
//! rustls hands a certificate on to clients and keeps its dates to itself. The
//! one date that operators ask for stands near the beginning of the structure
//! (RFC 5280, 4.1), and a few steps lead to it.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::types::ids::Timestamp;

/// Returns until when a certificate (DER) is valid; `None` when this is none.
pub(in crate::server) fn not_after(certificate: &[u8]) -> Option<Timestamp> {
    let (certificate, _) = inside(certificate, SEQUENCE)?;
    let (mut fields, _) = inside(certificate, SEQUENCE)?;
    // The version is left out of certificates of the first kind.
    if let Some((_, rest)) = inside(fields, VERSION) {
        fields = rest;
    }
    // Serial number, algorithm of the signature, issuer.
    for tag in [INTEGER, SEQUENCE, SEQUENCE] {
        fields = inside(fields, tag)?.1;
    }
    let (validity, _) = inside(fields, SEQUENCE)?;
    let (_, _, end) = element(validity)?;
    let (tag, text, _) = element(end)?;
    time(tag, text)
}

/// Splits the first element off: its tag, what is in it, and what follows.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        // So many bytes of length; more than four are longer than any file here.
        0x81..=0x84 => {
            let (length, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// Does the same for an element of this tag.
fn inside(bytes: &[u8], wanted: u8) -> Option<(&[u8], &[u8])> {
    let (tag, content, rest) = element(bytes)?;
    (tag == wanted).then_some((content, rest))
}

fn time(tag: u8, text: &[u8]) -> Option<Timestamp> {
    let digits = text.strip_suffix(b"Z")?;
    let two = |at: usize| -> Option<i8> {
        let pair = digits.get(at..at + 2).filter(|pair| pair.iter().all(u8::is_ascii_digit))?;
        str::from_utf8(pair).ok()?.parse().ok()
    };
    let (year, at) = match (tag, digits.len()) {
        (UTC_TIME, 12) => {
            let year = i16::from(two(0)?);
            (if year < 50 { 2000 + year } else { 1900 + year }, 2)
        }
        (GENERALIZED_TIME, 14) => (i16::from(two(0)?) * 100 + i16::from(two(2)?), 4),
        _ => return None,
    };
    let date = (year, two(at)?, two(at + 2)?);
    let clock = (two(at + 4)?, two(at + 6)?, two(at + 8)?);
    let at = DateTime::new(date.0, date.1, date.2, clock.0, clock.1, clock.2, 0).ok()?;
    let at = TimeZone::UTC.to_timestamp(at).ok()?;
    Some(Timestamp::from_millis(at.as_millisecond()))
}

const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::CertificateParams;
    use rcgen::KeyPair;
    use rcgen::date_time_ymd;

    use super::*;

    fn certificate(year: i32) -> Vec<u8> {
        let mut params = CertificateParams::new(["localhost".to_owned()]).expect("a name");
        params.not_after = date_time_ymd(year, 3, 4);
        let key = KeyPair::generate().expect("a key");
        params.self_signed(&key).expect("a certificate").der().to_vec()
    }

    fn check(year: i32, expected: &str) {
        let expected: jiff::Timestamp = expected.parse().expect("a moment");
        let found = not_after(&certificate(year)).map(Timestamp::as_millis);
        assert_eq!(found, Some(expected.as_millisecond()), "{year}");
    }

    #[test]
    fn the_end_is_read_in_both_forms() {
        check(2031, "2031-03-04T00:00:00Z");
        check(2049, "2049-03-04T00:00:00Z");
        check(2050, "2050-03-04T00:00:00Z");
        check(2199, "2199-03-04T00:00:00Z");
    }

    #[test]
    fn a_part_of_a_certificate_is_none() {
        let whole = certificate(2031);
        for length in 0..whole.len() {
            assert_eq!(not_after(&whole[..length]), None, "{length} bytes");
        }
    }

    proptest! {
        #[test]
        fn whatever_the_bytes_are_they_do_not_panic(
            at in 0_usize..400, byte: u8, noise: Vec<u8>,
        ) {
            let mut broken = certificate(2031);
            if let Some(place) = broken.get_mut(at) {
                *place = byte;
            }
            let _ = not_after(&broken);
            let _ = not_after(&noise);
        }
    }
}
