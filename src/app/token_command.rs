//! `brucke token`: tokens for development.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use std::time::SystemTime;

use anyhow::Context;
use anyhow::bail;
use serde_json::Map;
use serde_json::Value;

use crate::server::key::Algorithm;
use crate::server::signing_key::SigningKey;
use crate::types::setting::Raw;
use crate::types::setting::Setting;

/// Make a key or a token for development.
#[derive(Debug, clap::Args)]
pub struct TokenArgs {
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Debug, clap::Subcommand)]
enum TokenCommand {
    NewKey(NewKeyArgs),
    Mint(MintArgs),
}

/// Make a key: the private one goes to a file, the public one beside it, and the
/// matching configuration to stderr.
#[derive(Debug, clap::Args)]
struct NewKeyArgs {
    /// HS256, RS256, ES256 or EdDSA.
    #[arg(long, default_value = "EdDSA", value_parser = parse_setting::<Algorithm>)]
    algorithm: Algorithm,
    /// File of the private key; it must not exist yet.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    names: Names,
}

/// Sign a token: it goes to stdout, the matching configuration to stderr.
#[derive(Debug, clap::Args)]
struct MintArgs {
    /// File of the private key, or of the secret.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Whose records the bearer may read.
    #[arg(long)]
    tenant: String,
    /// Who the bearer is.
    #[arg(long, value_name = "SUBJECT")]
    sub: Option<String>,
    /// The channels that the bearer may read, between commas; all when absent.
    #[arg(long, value_delimiter = ',')]
    channels: Option<Vec<String>>,
    /// How long the token is good.
    #[arg(long, default_value = "1h", value_parser = parse_setting::<Duration>)]
    ttl: Duration,
    /// Another claim, as NAME=TEXT; may be repeated.
    #[arg(long = "claim", value_name = "NAME=TEXT", value_parser = parse_claim)]
    claims: Vec<(String, String)>,
    #[command(flatten)]
    names: Names,
}

/// What token and configuration must agree on.
#[derive(Debug, clap::Args)]
struct Names {
    /// The issuer (`iss`).
    #[arg(long, default_value = "brucke-dev")]
    issuer: String,
    /// The audience (`aud`).
    #[arg(long, default_value = "brucke")]
    audience: String,
    /// Name of the key (`kid`), where the configuration gives it one.
    #[arg(long)]
    kid: Option<String>,
}

/// Makes a key or a token.
///
/// # Errors
///
/// When a file can't be read or written, or the key can't sign.
pub fn run(args: TokenArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        TokenCommand::NewKey(args) => new_key(&args)?,
        TokenCommand::Mint(args) => mint(args)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn new_key(args: &NewKeyArgs) -> anyhow::Result<()> {
    let key = SigningKey::generate(args.algorithm)?;
    write_new(&args.out, key.private_text(), PRIVATE_MODE)?;
    let verifying = match key.public_text() {
        Some(public) => {
            let path = public_path(&args.out);
            write_new(&path, public, PUBLIC_MODE)?;
            path
        }
        None => args.out.clone(),
    };
    eprint!("{}", snippet(key.algorithm(), &args.names, &verifying)?);
    Ok(())
}

fn mint(args: MintArgs) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(&args.key)
        .with_context(|| format!("{} can't be read", args.key.display()))?;
    let key = SigningKey::read(&text).with_context(|| args.key.display().to_string())?;
    let verifying = match key.public_text() {
        Some(_) => public_path(&args.key),
        None => args.key.clone(),
    };
    let claims = claims(&args)?;
    let token = key.sign(&claims, args.names.kid.as_deref())?;
    eprint!("{}", snippet(key.algorithm(), &args.names, &verifying)?);
    println!("{}", token.secret());
    Ok(())
}

fn claims(args: &MintArgs) -> anyhow::Result<Value> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = now.context("the clock stands before 1970")?.as_secs();
    let mut claims = Map::new();
    for (name, text) in &args.claims {
        claims.insert(name.clone(), text.as_str().into());
    }
    claims.insert("iss".into(), args.names.issuer.as_str().into());
    claims.insert("aud".into(), args.names.audience.as_str().into());
    claims.insert("iat".into(), now.into());
    claims.insert("exp".into(), now.saturating_add(args.ttl.as_secs()).into());
    claims.insert("tenant".into(), args.tenant.as_str().into());
    if let Some(subject) = &args.sub {
        claims.insert("sub".into(), subject.as_str().into());
    }
    if let Some(channels) = &args.channels {
        claims.insert("channels".into(), channels.as_slice().into());
    }
    Ok(Value::Object(claims))
}

/// Returns the configuration that believes the tokens of a key. It names the file
/// from the root: where the configuration will stand, from whose folder paths
/// count, nobody knows here.
fn snippet(algorithm: Algorithm, names: &Names, verifying: &Path) -> anyhow::Result<String> {
    let verifying = std::path::absolute(verifying)?;
    let text = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let way = match algorithm {
        Algorithm::Hs256 => "secret_file",
        Algorithm::Rs256 | Algorithm::Es256 | Algorithm::EdDsa => "pem_file",
    };
    let mut lines = vec![
        "[[auth.issuers]]".to_owned(),
        format!("issuer = {}", text(&names.issuer)),
        format!("audience = [{}]", text(&names.audience)),
        format!("algorithm = {}", text(algorithm.name())),
        format!("{way} = {}", text(&verifying.to_string_lossy())),
    ];
    lines.extend(names.kid.as_ref().map(|kid| format!("kid = {}", text(kid))));
    Ok(lines.join("\n") + "\n")
}

/// Returns where the public key stands: `dev.pem` has `dev.pub.pem` beside it.
fn public_path(private: &Path) -> PathBuf {
    match private.extension() {
        Some(extension) => private.with_extension(format!("pub.{}", extension.to_string_lossy())),
        None => private.with_extension("pub"),
    }
}

const PRIVATE_MODE: u32 = 0o600;
const PUBLIC_MODE: u32 = 0o644;

fn write_new(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
    written.with_context(|| format!("{} can't be written", path.display()))
}

fn parse_setting<T: Setting>(text: &str) -> anyhow::Result<T> {
    match T::read(Raw::Text(text.to_owned())) {
        Ok(value) => Ok(value),
        Err(refusal) => bail!("{refusal}"),
    }
}

fn parse_claim(text: &str) -> anyhow::Result<(String, String)> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => bail!("write NAME=TEXT"),
    }
}
