//! What of the `[server]` section is checked beyond each key by itself.

use crate::config::loader::SectionReader;
use crate::server::config::ServerConfig;
use crate::server::forwarded::ForwardedHeader;
use crate::server::proxy_protocol::ProxyProtocol;
use crate::server::tls::pair::Half;
use crate::server::tls::pair::PairFiles;

/// Returns the files of the certificate, which have been read and found good;
/// `None` for what is refused, `Some(None)` without TLS.
pub(crate) fn tls(
    reader: &mut SectionReader<'_>,
    section: &ServerConfig,
) -> Option<Option<PairFiles>> {
    let files = match (&section.tls_certificate_file, &section.tls_key_file) {
        (None, None) => return Some(None),
        (Some(certificate), Some(key)) => PairFiles {
            certificate: reader.resolve(CERTIFICATE, certificate),
            key: reader.resolve(KEY, key),
        },
        (Some(_), None) => {
            reader.refuse(CERTIFICATE, "needs its private key: add `tls_key_file`");
            return None;
        }
        (None, Some(_)) => {
            reader.refuse(KEY, "needs its certificate: add `tls_certificate_file`");
            return None;
        }
    };
    match files.load() {
        Ok(_) => Some(Some(files)),
        Err(error) => {
            let key = match error.half {
                Half::Certificate => CERTIFICATE,
                Half::Key => KEY,
            };
            reader.refuse(key, error.text);
            None
        }
    }
}

/// Checks that who is trusted says something, and who says something is trusted;
/// the reader remembers what is wrong.
pub(crate) fn check_proxies(reader: &mut SectionReader<'_>, section: &ServerConfig) {
    let silent = section.proxy_protocol == ProxyProtocol::Off
        && section.forwarded_header == ForwardedHeader::None;
    let nobody = section.trusted_proxies.is_empty();
    if silent && !nobody {
        let text = "are believed, and nothing that they say is read: set `proxy_protocol` or \
                    `forwarded_header`, or leave this out";
        reader.refuse("trusted_proxies", text);
    }
    let text = "needs to know whose word to take: add `trusted_proxies`";
    if nobody && section.proxy_protocol != ProxyProtocol::Off {
        reader.refuse("proxy_protocol", text);
    }
    if nobody && section.forwarded_header != ForwardedHeader::None {
        reader.refuse("forwarded_header", text);
    }
}

const CERTIFICATE: &str = "tls_certificate_file";
const KEY: &str = "tls_key_file";

#[cfg(test)]
mod tests {
    use std::fs;

    use rcgen::KeyPair;
    use rcgen::generate_simple_self_signed;

    use crate::config::load;

    /// Loads a configuration with these lines of `[server]` beside these files, and
    /// expects its only problem to begin so; no text expects none.
    fn check(files: &[(&str, &str)], lines: &str, expected: &str, remedy: &str) {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, text) in files {
            fs::write(folder.path().join(name), text).expect("written");
        }
        let path = folder.path().join("brucke.toml");
        let text = format!(
            "channels = [{{ name = \"orders\", topic = \"{{tenant}}.orders\" }}]\n\
             auth = {{ mode = \"none\", tenant = \"acme\" }}\n\
             kafka.bootstrap_servers = [\"k:9092\"]\n[server]\n{lines}\n"
        );
        fs::write(&path, text).expect("written");
        let loaded = load(Some(&path), std::iter::empty());
        let said = loaded.map_or_else(|errors| errors.to_string(), |_| String::new());
        let said = said.replace(&format!("{}/", folder.path().display()), "");
        assert!(said.starts_with(expected) && said.contains(remedy), "{said}");
        assert_eq!(said.is_empty(), expected.is_empty(), "{said}");
        assert_eq!(said.lines().count(), usize::from(!expected.is_empty()), "{said}");
    }

    #[test]
    fn tls_is_refused_with_file_and_remedy() {
        let made = generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let other = KeyPair::generate().expect("a key").serialize_pem();
        let both = "tls_certificate_file = \"tls.crt\"\ntls_key_file = \"tls.key\"";
        check(&[("tls.crt", &certificate), ("tls.key", &key)], both, "", "");
        let at = "brucke.toml:5: server.tls_certificate_file names tls.crt, which can't be read";
        check(&[("tls.key", &key)], both, at, "No such file");
        let at = "brucke.toml:6: server.tls_key_file names tls.key, which is not the key of the";
        check(&[("tls.crt", &certificate), ("tls.key", &other)], both, at, "issued together");
        let locked = key.replace("BEGIN PRIVATE KEY", "BEGIN ENCRYPTED PRIVATE KEY");
        let at = "brucke.toml:6: server.tls_key_file names tls.key, whose key has a passphrase";
        check(&[("tls.crt", &certificate), ("tls.key", &locked)], both, at, "openssl pkey");
        let at = "brucke.toml:5: server.tls_certificate_file needs its private key";
        check(&[], "tls_certificate_file = \"tls.crt\"", at, "add `tls_key_file`");
        let at = "brucke.toml:5: server.tls_key_file needs its certificate";
        check(&[], "tls_key_file = \"tls.key\"", at, "add `tls_certificate_file`");
    }

    #[test]
    fn proxies_are_trusted_for_something_or_not_at_all() {
        let trusted = "trusted_proxies = [\"10.0.0.0/8\", \"::1\"]";
        let check = |lines: &str, expected| check(&[], lines, expected, "");
        check(&format!("{trusted}\nproxy_protocol = \"v2\""), "");
        check(&format!("{trusted}\nforwarded_header = \"forwarded\""), "");
        check(trusted, "brucke.toml:5: server.trusted_proxies are believed, and nothing");
        check("proxy_protocol = \"v2\"", "brucke.toml:5: server.proxy_protocol needs to know");
        let header = "forwarded_header = \"x-forwarded-for\"";
        check(header, "brucke.toml:5: server.forwarded_header needs to know whose word");
        let odd = "trusted_proxies = [\"10.0.0.1/8\"]\nproxy_protocol = \"v2\"";
        check(odd, "brucke.toml:5: server.trusted_proxies has \"10.0.0.1/8\"");
    }
}
