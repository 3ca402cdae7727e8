//! Files that the configuration names.

use std::io::Read;
use std::path::Path;

use crate::config::loader::SectionReader;
use crate::config::values::Secret;

/// Bytes that a file of a key or a password may have.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// Reads a small text file that `key` names; `None` when it can't be read, which
/// the reader reports.
pub(crate) fn read_text(reader: &mut SectionReader<'_>, key: &str, path: &Path) -> Option<String> {
    let path = reader.resolve(key, path);
    let mut text = String::new();
    let read = std::fs::File::open(&path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text));
    match read {
        Ok(_) if text.len() as u64 > FILE_BYTES_MAX => {
            let text = format!("names {}, which is larger than any key", path.display());
            reader.refuse(key, text);
            None
        }
        Ok(_) => {
            reader.note_file(key, text.as_bytes());
            Some(text)
        }
        Err(error) => {
            reader.refuse(key, format!("names {}, which can't be read: {error}", path.display()));
            None
        }
    }
}

/// Reads a secret from a file: its text without the line break at its end.
pub(crate) fn read_secret(
    reader: &mut SectionReader<'_>,
    key: &str,
    path: &Path,
) -> Option<Secret> {
    let text = read_text(reader, key, path)?;
    let secret = text.strip_suffix('\n').unwrap_or(&text);
    let secret = secret.strip_suffix('\r').unwrap_or(secret);
    if secret.is_empty() {
        reader.refuse(key, "names a file that is empty");
        return None;
    }
    Some(Secret::new(secret.to_owned()))
}
