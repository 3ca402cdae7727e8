//! What the architecture forbids and a machine can see: who may import whom,
//! who may name which crate, and what the pure rooms must not touch.
//!
//! The lists below are the ones of `ARCHITECTURE.md`. To allow something new is
//! a decision: change the list and the page together.

use std::collections::HashSet;
use std::fmt;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

/// The rooms, each with its storey. Imports go only downward.
const ROOMS: [(&str, u8); 15] = [
    ("main", 4),
    ("app", 4),
    ("config", 4),
    ("kafka", 3),
    ("server", 3),
    ("admin", 3),
    ("telemetry", 3),
    ("client", 3),
    ("delivery", 2),
    ("protocol", 1),
    ("log", 1),
    ("registry", 1),
    ("resume", 1),
    ("tenancy", 1),
    ("types", 0),
];

/// Imports within one storey: from, to, and why it ties no knot.
const SAME_STOREY: [(&str, &str, &str); 9] = [
    ("main", "app", "the binary hands over to the wiring"),
    ("app", "config", "the wiring is built from the configuration"),
    ("registry", "log", "a source is the tails of its partitions"),
    ("registry", "tenancy", "a source is a topic under a tenancy rule"),
    ("tenancy", "protocol", "what is verified is the token of the protocol"),
    ("resume", "protocol", "a start is what a client's frame asks for"),
    ("resume", "registry", "a start is resolved against what the registry looked up"),
    ("server", "telemetry", "an edge tells what happens"),
    ("admin", "telemetry", "the metrics page prints what was counted"),
];

/// Rooms without clock, socket, task or environment.
const PURE: [&str; 7] = ["types", "protocol", "log", "registry", "resume", "tenancy", "delivery"];

/// What a pure room must not name.
const IMPURE: [&str; 11] = [
    "SystemTime::now",
    "Instant::now",
    "Timestamp::now",
    "Zoned::now",
    "tokio",
    "std::env",
    "std::fs",
    "std::net",
    "std::thread",
    "async",
    "await",
];

/// Crates that only some rooms may name. A name stands for all that begin so.
const CRATES: [(&str, &[&str]); 4] = [
    ("rdkafka", &["kafka"]),
    ("actix", &["server", "admin"]),
    ("opentelemetry", &["telemetry"]),
    ("tracing_opentelemetry", &["telemetry"]),
];

/// Files that may hold `unsafe`, and why there is no safe way.
const UNSAFE: [(&str, &str); 5] = [
    ("src/log/batch.rs", "a value that was checked to be text once is not checked at each send"),
    ("src/kafka/native/offsets.rs", "the safe lists of partitions have no leader epochs"),
    ("src/kafka/native/queue.rs", "the safe queues do not say at which offset a partition ends"),
    ("src/kafka/native/topics.rs", "topic ids are not in the safe API"),
    (
        "src/server/link.rs",
        "no safe crate asks a socket how much is unread, or limits how long it backs off",
    ),
];

/// Folders and files of the repository whose text is read.
const READ: [&str; 19] = [
    "src",
    "scripts",
    "tests",
    "bench",
    "clients",
    "docs",
    "proto",
    "helm",
    "k8s",
    "examples",
    "Dockerfile",
    ".ci",
    "Makefile",
    "Cargo.toml",
    "deny.toml",
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
];

#[test]
fn the_house_is_tidy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    READ.iter().for_each(|name| collect(&root.join(name), &mut files));
    let mut faults = Vec::new();
    let mut sources = 0;
    for file in &files {
        let Ok(text) = fs::read_to_string(file) else { continue };
        let name = file.strip_prefix(root).expect("collected below the root");
        let name = name.to_str().expect("names in the repository are UTF-8");
        check_text(name, &text, &mut faults);
        if name.starts_with("src/") && name.ends_with(".rs") {
            check_source(name, &text, &mut faults);
            sources += 1;
        }
    }
    assert!(sources > 20, "only {sources} sources found below {}", root.display());
    let list: Vec<String> = faults.iter().map(Fault::to_string).collect();
    assert!(list.is_empty(), "{} faults\n{}", list.len(), list.join("\n"));
}

#[test]
fn every_allowance_is_needed_and_has_a_reason() {
    let reasons = SAME_STOREY.iter().map(|entry| entry.2).chain(UNSAFE.iter().map(|entry| entry.1));
    assert!(reasons.into_iter().all(|reason| !reason.is_empty()));
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    collect(&root.join("src"), &mut files);
    let mut used = HashSet::new();
    for file in files {
        let name = file.strip_prefix(root).expect("collected below the root").display().to_string();
        let text = fs::read_to_string(&file).expect("sources are text");
        let code = without_tests(&without_text(&text));
        let room = room_of(&name);
        used.extend(imports(&code).map(|to| (room.to_owned(), to.to_owned())));
        if code.lines().any(|line| has_word(line, "unsafe")) {
            used.insert((name, "unsafe".to_owned()));
        }
    }
    for (from, to, _) in SAME_STOREY {
        assert_eq!(storey(from), storey(to), "{from} to {to} needs no allowance");
        assert!(used.contains(&(from.to_owned(), to.to_owned())), "{from} no longer imports {to}");
        assert!(!SAME_STOREY.iter().any(|back| back.0 == to && back.1 == from), "{from} and {to}");
        assert!(![("kafka", "server"), ("server", "kafka")].contains(&(from, to)));
    }
    for (file, _) in UNSAFE {
        assert!(used.contains(&(file.to_owned(), "unsafe".to_owned())), "{file} needs none");
    }
}

#[test]
fn the_drawing_of_the_house_is_the_one_that_is_checked() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("ARCHITECTURE.md"));
    let page = page.expect("the drawing of the house");
    let mut drawn: Vec<(String, u8)> = Vec::new();
    for row in page.lines().filter_map(|line| line.strip_prefix("| ")) {
        let mut cells = row.split(" | ");
        let (Some(storey), Some(rooms)) = (cells.next(), cells.next()) else { continue };
        let Ok(storey) = storey.parse() else { continue };
        drawn.extend(quoted(rooms).map(|room| (room.to_owned(), storey)));
    }
    assert_eq!(drawn, ROOMS.map(|(room, storey)| (room.to_owned(), storey)));

    let sentence = page.lines().find_map(|line| line.strip_prefix("Same-storey imports: "));
    let (sentence, _) = sentence.and_then(|line| line.split_once(". ")).expect("a sentence");
    let mut allowed = HashSet::new();
    for chain in sentence.split(';') {
        let links: Vec<&str> = chain.split('→').collect();
        for pair in links.windows(2) {
            let pairs = quoted(pair[0]).flat_map(|from| quoted(pair[1]).map(move |to| (from, to)));
            allowed.extend(pairs);
        }
    }
    assert_eq!(allowed, SAME_STOREY.iter().map(|entry| (entry.0, entry.1)).collect());
}

/// Returns what stands between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Something that must not stand where it stands.
#[derive(Debug, PartialEq, Eq)]
struct Fault {
    file: String,
    line: usize,
    what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.what)
    }
}

/// Checks what holds of every text, comments and tests included.
fn check_text(file: &str, text: &str, faults: &mut Vec<Fault>) {
    // Put together here, so that this file does not accuse itself.
    let unfinished = [concat!("TO", "DO"), concat!("FIX", "ME")];
    let macros = [concat!("to", "do!"), concat!("unimple", "mented!")];
    let places = ["work", "root", "home", "Users"].map(|folder| format!("/{folder}/"));
    let temporary = ["t", "wt"].map(|folder| format!("/tmp/{folder}/"));
    let rust = file.ends_with(".rs");
    for (index, line) in text.lines().enumerate() {
        let mut accuse = |what: String| {
            faults.push(Fault { file: file.to_owned(), line: index + 1, what });
        };
        for word in unfinished.iter().filter(|word| has_word(line, word)) {
            accuse(format!("{word}: finish it or open an issue"));
        }
        for word in macros.iter().filter(|word| rust && line.contains(**word)) {
            accuse(format!("{word} is not for code that lands"));
        }
        for place in places.iter().chain(&temporary).filter(|place| has_path(line, place)) {
            accuse(format!("{place} is a path of one machine"));
        }
    }
}

/// Checks what holds of the sources, but for their tests.
fn check_source(file: &str, text: &str, faults: &mut Vec<Fault>) {
    if file.ends_with("/tests.rs") || file.contains("/tests/") {
        return;
    }
    let code = without_tests(&without_text(text));
    let room = room_of(file);
    let mut accuse = |line: usize, what: String| {
        faults.push(Fault { file: file.to_owned(), line, what });
    };
    if storey(room).is_none() && room != "lib" {
        accuse(1, format!("room {room} has no storey"));
    }
    for (index, line) in code.lines().enumerate() {
        let mut accuse = |what: String| accuse(index + 1, what);
        for to in imports(line).filter(|to| !may_import(room, to)) {
            accuse(format!("{room} must not import {to}"));
        }
        for (name, rooms) in CRATES {
            if has_word_that_begins(line, name) && !rooms.contains(&room) {
                accuse(format!("{room} must not name {name}: only {} may", rooms.join(", ")));
            }
        }
        for word in IMPURE.iter().filter(|word| PURE.contains(&room) && has_word(line, word)) {
            accuse(format!("{room} is pure and must not name {word}"));
        }
        if has_word(line, "super::") {
            accuse("super:: outside tests: name the path from crate on".to_owned());
        }
        if has_word(line, "unsafe") && !UNSAFE.iter().any(|(allowed, _)| *allowed == file) {
            accuse("unsafe in a file that is not on the list".to_owned());
        }
        let line = line.trim_start();
        if is_re_export(line) {
            accuse("re-export: every item has one path".to_owned());
        }
        if line.starts_with("use crate::") && (line.contains('{') || line.contains('*')) {
            accuse("one use per line, and no globs".to_owned());
        }
    }
}

/// Says whether a line gives an item a second path. A macro by its bare name is
/// none: nothing else gives a macro a path within the crate.
fn is_re_export(line: &str) -> bool {
    let path = line.strip_prefix("pub use ").or_else(|| line.strip_prefix("pub(crate) use "));
    path.is_some_and(|path| path.contains("::"))
}

/// Returns the room that a file below `src` belongs to.
fn room_of(file: &str) -> &str {
    let inside = file.strip_prefix("src/").unwrap_or(file);
    inside.split('/').next().unwrap_or(inside).trim_end_matches(".rs")
}

fn storey(room: &str) -> Option<u8> {
    ROOMS.iter().find(|(name, _)| *name == room).map(|(_, storey)| *storey)
}

fn may_import(from: &str, to: &str) -> bool {
    let (Some(above), Some(below)) = (storey(from), storey(to)) else {
        // A macro of the crate's root is no room.
        return storey(to).is_none();
    };
    from == to
        || above > below
        || SAME_STOREY.iter().any(|(source, target, _)| *source == from && *target == to)
}

/// Returns the rooms that a line of code names by their path.
fn imports(line: &str) -> impl Iterator<Item = &str> {
    ["crate::", "brucke::"].into_iter().flat_map(move |prefix| {
        let places = line.match_indices(prefix).map(|(at, _)| at);
        places.filter(|&at| !ends_in_word(&line[..at])).map(move |at| {
            let rest = &line[at + prefix.len()..];
            &rest[..rest.find(|c| !is_word(c)).unwrap_or(rest.len())]
        })
    })
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn ends_in_word(text: &str) -> bool {
    text.ends_with(is_word)
}

/// Says whether `word` stands in `line` and is not part of a longer word.
fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let goes_on = word.ends_with(is_word) && line[at + word.len()..].starts_with(is_word);
        !ends_in_word(&line[..at]) && !goes_on
    })
}

fn has_word_that_begins(line: &str, begin: &str) -> bool {
    line.match_indices(begin).any(|(at, _)| !ends_in_word(&line[..at]))
}

/// Says whether an absolute path that begins so stands in `line`; the same
/// folders may stand within a URL or a relative path.
fn has_path(line: &str, begin: &str) -> bool {
    line.match_indices(begin).any(|(at, _)| {
        !line[..at].ends_with(|c| is_word(c) || matches!(c, '.' | '/' | '-' | '}' | ')'))
    })
}

/// Blanks comments and literals, so that what remains is code; lines stay.
fn without_text(source: &str) -> String {
    let mut code = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(next) = rest.chars().next() {
        let text_len = match next {
            '/' if rest.starts_with("//") => Some(rest.find('\n').unwrap_or(rest.len())),
            '/' if rest.starts_with("/*") => Some(block_comment_len(rest)),
            '"' => Some(string_len(rest)),
            '\'' => Some(char_len(rest)),
            'r' | 'b' | 'c' if !ends_in_word(&code) => raw_string_len(rest),
            _ => None,
        };
        let (token, after) = rest.split_at(text_len.unwrap_or(next.len_utf8()));
        match text_len {
            None => code.push_str(token),
            Some(_) => code.extend(token.chars().map(|c| if c == '\n' { '\n' } else { ' ' })),
        }
        rest = after;
    }
    code
}

fn block_comment_len(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        if rest.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

fn string_len(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Returns the length of `r"…"`, `br#"…"#` and their kin; `None` for a name.
fn raw_string_len(text: &str) -> Option<usize> {
    let start = text.strip_prefix(['b', 'c']).unwrap_or(text).strip_prefix('r')?;
    let hashes = start.len() - start.trim_start_matches('#').len();
    let body = start[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let body_len = body.find(&end).map_or(body.len(), |at| at + end.len());
    Some(text.len() - body.len() + body_len)
}

/// Returns the length of a character literal, or 1 for a lifetime's quote.
fn char_len(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), Some((at, escaped))) => {
            let after = at + escaped.len_utf8();
            text[after..].find('\'').map_or(1, |end| after + end + 1)
        }
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 1,
    }
}

/// Blanks the items marked `#[cfg(test)]` of code that has no text any more.
fn without_tests(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut out = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(at) = rest.find(MARK) {
        let (before, item) = rest.split_at(at);
        let (item, after) = item.split_at(MARK.len() + item_len(&item[MARK.len()..]));
        out.push_str(before);
        out.extend(item.chars().filter(|&c| c == '\n'));
        rest = after;
    }
    out.push_str(rest);
    out
}

/// Returns the length of an item: up to its closing brace, or its semicolon.
fn item_len(text: &str) -> usize {
    let mut depth = 0_usize;
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 && matches!(c, '}' | ';') {
            return at + 1;
        }
    }
    text.len()
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) {
    let made = ["node_modules", "target", ".cache"];
    if path.is_file() {
        files.push(path.to_owned());
    } else if let Ok(entries) = fs::read_dir(path) {
        let entries = entries.map(|entry| entry.expect("a folder that can be read").path());
        entries
            .filter(|entry| !made.iter().any(|name| entry.ends_with(name)))
            .for_each(|entry| collect(&entry, files));
    }
}

/// Plants `text` as `file` and returns what is found, with the lines.
fn found(file: &str, text: &str) -> Vec<(usize, String)> {
    let mut faults = Vec::new();
    check_text(file, text, &mut faults);
    if file.starts_with("src/") {
        check_source(file, text, &mut faults);
    }
    faults.into_iter().map(|fault| (fault.line, fault.what)).collect()
}

fn check_found(file: &str, text: &str, line: usize, what: &str) {
    let found = found(file, text);
    let [(at, says)] = &found[..] else {
        panic!("one fault expected in {file}: {text}\nfound {found:?}");
    };
    assert!(*at == line && says.contains(what), "{file}: {text}\nfound {found:?}");
}

fn check_clean(file: &str, text: &str) {
    assert_eq!(found(file, text), [], "{file}: {text}");
}

#[test]
fn a_planted_import_is_found() {
    check_found("src/types/ids.rs", "use crate::log::batch::Batch;", 1, "types must not import");
    check_found("src/log/batch.rs", "\nfn f() { crate::registry::x() }", 2, "import registry");
    check_found("src/delivery/mod.rs", "use crate::server::x;", 1, "import server");
    check_found("src/kafka/mod.rs", "use crate::server::x;", 1, "kafka must not import server");
    check_found("src/server/a/b.rs", "use crate::kafka::x;", 1, "server must not import kafka");
    check_found("src/log/mod.rs", "use crate::unheard_of::x;\nuse crate::app::y;", 2, "app");
    check_found("src/cellar/mod.rs", "fn f() {}", 1, "room cellar has no storey");
    check_clean("src/delivery/mod.rs", "use crate::registry::message::Event;");
    check_clean("src/registry/mod.rs", "use crate::log::partition::SharedPartition;");
    check_clean("src/main.rs", "fn main() { brucke::app::run() }");
}

#[test]
fn a_planted_crate_or_clock_is_found() {
    check_found("src/server/mod.rs", "use rdkafka::ClientConfig;", 1, "name rdkafka");
    check_found("src/app/mod.rs", "use rdkafka_sys::rd_kafka_t;", 1, "name rdkafka");
    check_found("src/app/mod.rs", "fn f() { actix_rt::System::new(); }", 1, "name actix");
    check_found("src/server/mod.rs", "use opentelemetry::Context;", 1, "name opentelemetry");
    check_found("src/log/mod.rs", "use tracing_opentelemetry::x;", 1, "tracing_opentelemetry");
    check_clean("src/telemetry/mod.rs", "use opentelemetry_sdk::Resource;");
    check_clean("src/kafka/mod.rs", "use rdkafka::ClientConfig;");
    check_clean("src/admin/mod.rs", "use actix_web::App;");
    check_found("src/delivery/mod.rs", "let now = Instant::now();", 1, "Instant::now");
    check_found("src/resume/mod.rs", "let n = std::time::SystemTime::now();", 1, "SystemTime");
    check_found("src/log/mod.rs", "use tokio::sync::Notify;", 1, "tokio");
    check_found("src/tenancy/mod.rs", "async fn f() {}", 1, "async");
    check_clean("src/kafka/mod.rs", "let now = Instant::now();");
    check_clean("src/log/mod.rs", "// Instant::now\nlet s = \"tokio\"; let tokiomarine = 1;");
    check_clean(
        "src/log/mod.rs",
        "#[cfg(test)]\nmod tests { use tokio::x; fn f() { super::g() } }",
    );
    check_found("src/log/mod.rs", "#[cfg(test)]\nmod tests;\nuse tokio::x;", 3, "tokio");
}

#[test]
fn a_planted_shortcut_is_found() {
    check_found("src/log/mod.rs", "use super::x;", 1, "super");
    check_found("src/log/mod.rs", "unsafe { f() }", 1, "unsafe");
    check_found("src/log/mod.rs", "pub use crate::log::batch::Batch;", 1, "re-export");
    check_clean("src/log/mod.rs", "pub(crate) use offsets;");
    check_found("src/log/mod.rs", "use crate::log::{batch, budget};", 1, "one use per line");
    check_found("src/log/mod.rs", concat!("// TO", "DO: later"), 1, "finish it");
    check_found("src/log/mod.rs", concat!("fn f() { to", "do!() }"), 1, "code that lands");
    check_found("tests/x.rs", concat!("fn f() { unimple", "mented!(\"x\") }"), 1, "that lands");
    check_found("docs/a.md", concat!("see `/wo", "rk/x`"), 1, "path of one machine");
    check_clean("docs/a.md", concat!("see https://example.org/wo", "rk/x and src/wo", "rk/"));
}

#[test]
fn text_is_told_from_code() {
    let code = "a r#\"un\"safe\"# 'x' '\\'' '\"' b\"\\\"\" /* /* x */ */ 'static c // d\ne";
    let words: Vec<String> = without_text(code).split_whitespace().map(str::to_owned).collect();
    assert_eq!(words, ["a", "b", "static", "c", "e"]);
    assert_eq!(without_text("x\"\n\ny\"z").lines().count(), 3);
}
