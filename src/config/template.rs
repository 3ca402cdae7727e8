//! Writes the declared keys down: as a file to begin with, and as documentation.

use std::fmt::Write;

use crate::config::catalogue::KeyDoc;
use crate::config::catalogue::SectionDoc;
use crate::config::catalogue::Shape;
use crate::config::catalogue::sections;
use crate::config::loader::variable_of;
use crate::types::setting::Absent;
use crate::types::setting::Written;

/// Returns a configuration file that has every key: those that must be set with
/// an example, the others behind a `#` with their default.
pub fn as_toml() -> String {
    let mut out = String::from(TOML_HEAD);
    for section in sections() {
        out.push('\n');
        comment(&mut out, section.about);
        let _ = match section.shape {
            Shape::Table => writeln!(out, "[{}]", section.name),
            Shape::List => writeln!(out, "[[{}]]", section.name),
        };
        if section.shape == Shape::List {
            let _ = writeln!(out, "# All of them, as a TOML array: {}.", variable_of(section.name));
        }
        for key in &section.keys {
            out.push('\n');
            toml_key(&mut out, &section, key);
        }
    }
    out
}

/// Returns the documentation of every key, as Markdown.
pub fn as_markdown() -> String {
    let mut out = String::new();
    for section in sections() {
        let (open, close) = match section.shape {
            Shape::Table => ("[", "]"),
            Shape::List => ("[[", "]]"),
        };
        let _ = writeln!(out, "## `{open}{}{close}`\n", section.name);
        paragraph(&mut out, section.about);
        if section.shape == Shape::List {
            let variable = variable_of(section.name);
            let _ = writeln!(out, "All of them, as a TOML array: `{variable}`.\n");
        }
        for key in &section.keys {
            markdown_key(&mut out, &section, key);
        }
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

const TOML_HEAD: &str = "\
# The configuration of Brücke, with every key that there is.
#
# A line that begins with `#key =` shows a default, or an example where it says
# so. Each key may also be set by the environment variable that is named beside
# it, which then counts more than this file. Durations and sizes have units:
# \"25s\", \"256MiB\". `brucke check-config` says what is wrong with a file.
";

fn toml_key(out: &mut String, section: &SectionDoc, doc: &KeyDoc) {
    comment(out, doc.key.docs);
    let mut facts = Vec::new();
    if let Some((least, most)) = doc.key.preset.within {
        facts.push(format!("From {least} to {most}."));
    }
    let (mark, text) = match doc.key.preset.absent {
        Absent::Default(text) => ("#", text),
        Absent::Unset { example } => {
            facts.push("Not set; an example:".to_owned());
            ("#", example)
        }
        Absent::Suggested { example } | Absent::Refused { example } => ("", example),
    };
    if let Some(variable) = variable(section, doc) {
        facts.insert(0, format!("{variable}."));
    }
    if !facts.is_empty() {
        let _ = writeln!(out, "# {}", facts.join(" "));
    }
    let _ = writeln!(out, "{mark}{} = {}", doc.key.name, toml_value(doc, text));
}

fn markdown_key(out: &mut String, section: &SectionDoc, doc: &KeyDoc) {
    let _ = writeln!(out, "### `{}.{}`\n", section.name, doc.key.name);
    paragraph(out, doc.key.docs);
    let mut facts = vec![match doc.key.preset.absent {
        Absent::Default(text) => format!("Default `{}`", toml_value(doc, text)),
        Absent::Unset { example } | Absent::Suggested { example } => {
            format!("Not set by default; for example `{}`", toml_value(doc, example))
        }
        Absent::Refused { example } => {
            format!("Must be set; for example `{}`", toml_value(doc, example))
        }
    }];
    if let Some((least, most)) = doc.key.preset.within {
        facts.push(format!("from `{least}` to `{most}`"));
    }
    if let Some(variable) = variable(section, doc) {
        facts.push(format!("variable `{variable}`"));
    }
    let _ = writeln!(out, "{}.\n", facts.join("; "));
}

/// Returns the variable of a key; those of listed sections have none of their own.
fn variable(section: &SectionDoc, doc: &KeyDoc) -> Option<String> {
    let whole = format!("{}.{}", section.name, doc.key.name);
    (section.shape == Shape::Table).then(|| variable_of(&whole))
}

fn toml_value(doc: &KeyDoc, text: &str) -> String {
    match doc.form.written {
        Written::Text => toml::Value::String(text.to_owned()).to_string(),
        Written::Bare | Written::List => text.to_owned(),
    }
}

fn comment(out: &mut String, lines: &[&str]) {
    for line in lines {
        let _ = writeln!(out, "#{line}");
    }
}

fn paragraph(out: &mut String, lines: &[&str]) {
    for line in lines {
        let _ = writeln!(out, "{}", line.trim_start());
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;
    use crate::config::load;
    use crate::config::problem::ConfigErrors;

    fn check(toml: &str) -> Result<Config, ConfigErrors> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("brucke.toml");
        std::fs::write(&path, toml).expect("written");
        let secret = ("BRUCKE_TOKEN_SECRET".to_owned(), "s".repeat(32));
        load(Some(&path), std::iter::once(secret))
    }

    #[test]
    fn the_template_is_a_valid_configuration() {
        check(&as_toml()).expect("valid");
    }

    #[test]
    fn every_default_in_the_template_is_the_default() {
        let template = as_toml();
        let mut example = false;
        let mut active = String::new();
        for line in template.lines() {
            let is_key = line.starts_with('#') && !line.starts_with("# ") && line.contains(" = ");
            active += if is_key && !example { &line[1..] } else { line };
            active.push('\n');
            example = line.ends_with("an example:");
        }
        let (written, absent) = (check(&active).expect("valid"), check(&template).expect("valid"));
        assert_eq!(format!("{written:?}"), format!("{absent:?}"));
    }

    #[test]
    fn the_documentation_has_every_key_as_it_is_declared() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
        let page = std::fs::read_to_string(path).expect("the page is there");
        let (_, keys) = page.split_once("<!-- keys -->\n\n").expect("the page has a mark");
        let hint = "after the mark, paste what `brucke config-template --format markdown` prints";
        assert_eq!(keys, as_markdown(), "{hint}");
    }
}
