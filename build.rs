//! Makes Rust of `proto/`: the messages, and for each message a client sends
//! the shape that its bytes are checked against.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use prost_build::Config;
use protox::prost_reflect::prost_types::FileDescriptorSet;
use protox::prost_reflect::prost_types::field_descriptor_proto::Type;

type Error = Box<dyn std::error::Error>;

const FILES: [&str; 2] = ["brucke/v1/client.proto", "brucke/v1/server.proto"];

fn main() -> Result<(), Error> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(FILES, ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("shapes.rs"), shapes(&files)?)?;
    Config::new()
        .btree_map(["."])
        .bytes(["."])
        // It holds a token, which must not be printed.
        .skip_debug(["brucke.v1.Authenticate"])
        .compile_fds(files)?;
    Ok(())
}

/// Writes a constant `Shape` for each message of the client's file.
fn shapes(files: &FileDescriptorSet) -> Result<String, Error> {
    let file = files.file.iter().find(|file| file.name() == FILES[0]).ok_or("no client.proto")?;
    let mut text = String::new();
    let mut messages: Vec<_> = file.message_type.iter().map(|m| (m.name().to_owned(), m)).collect();
    for message in &file.message_type {
        for nested in &message.nested_type {
            messages.push((format!("{}.{}", message.name(), nested.name()), nested));
        }
    }
    for (name, message) in messages {
        writeln!(text, "pub(crate) const {}: Shape = Shape {{", constant(&name))?;
        writeln!(text, "    name: {name:?},\n    fields: &[")?;
        for field in &message.field {
            let shape = match field.type_name().strip_prefix(".brucke.v1.") {
                Some(inner) if field.r#type() == Type::Message => {
                    format!("Some(&{})", constant(inner))
                }
                _ => "None".to_owned(),
            };
            writeln!(text, "        ({}, {shape}),", field.number())?;
        }
        writeln!(text, "    ],\n}};")?;
    }
    Ok(text)
}

fn constant(name: &str) -> String {
    let mut text = String::new();
    for (index, letter) in name.char_indices() {
        match letter {
            '.' => {}
            'A'..='Z' if index > 0 => text.extend(['_', letter]),
            _ => text.push(letter.to_ascii_uppercase()),
        }
    }
    text
}
