//! When a certificate ends: rustls hands it on to clients and keeps its dates to
//! itself.

use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use crate::types::ids::Timestamp;

/// Returns until when a certificate (DER) is valid; `None` when this is none.
pub(in crate::server) fn not_after(certificate: &[u8]) -> Option<Timestamp> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let seconds = certificate.validity().not_after.timestamp();
    Some(Timestamp::from_millis(seconds.checked_mul(1_000)?))
}

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
