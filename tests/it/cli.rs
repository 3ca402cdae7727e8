//! The commands that need no server: their output and exit codes.

use std::path::Path;
use std::process::Command;
use std::process::Output;

use brucke::config;
use brucke::protocol::frame::Token;
use brucke::server::token::Verifier;
use brucke::types::ids::Timestamp;

/// Runs the binary in `folder`, without any variable of ours around it.
fn brucke(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_brucke"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("BRUCKE_") {
            command.env_remove(name);
        }
    }
    command.current_dir(folder).args(arguments).output().expect("the binary runs")
}

fn check(output: &Output, code: i32, stderr: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(text.contains(stderr), "{text}");
}

#[test]
fn check_config_has_an_exit_code_for_each_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |text: &str| std::fs::write(folder.path().join("b.toml"), text).expect("written");
    let check_config = || brucke(folder.path(), &["check-config", "--config", "b.toml"]);
    write(
        "kafka.bootstrap_servers = [\"k:9092\"]\n\
         auth = { mode = \"none\", tenant = \"acme\" }\n\
         channels = [{ name = \"orders\", topic = \"{tenant}.orders\" }]\n",
    );
    let valid = check_config();
    check(&valid, 0, "");
    assert!(String::from_utf8_lossy(&valid.stdout).starts_with("valid: channels orders from"));
    write("[server]\nheartbeat_interval = 25\n");
    check(&check_config(), 1, "b.toml:2: server.heartbeat_interval is 25 without a unit");
    check(&check_config(), 1, "b.toml: kafka.bootstrap_servers is missing");
    let unnamed = brucke(folder.path(), &["check-config"]);
    check(&unnamed, 1, "kafka.bootstrap_servers is missing");
    check(&unnamed, 1, "no file was named: use --config or BRUCKE_CONFIG");
    check(&brucke(folder.path(), &["check-config", "b.toml"]), 2, "unexpected argument");
    check(&brucke(folder.path(), &["chek-config"]), 2, "check-config");
    check(&brucke(folder.path(), &["check-config", "--config", "none"]), 1, "none: can't be read");
}

#[test]
fn the_template_that_is_printed_needs_only_its_secret() {
    let folder = tempfile::tempdir().expect("a folder");
    let template = brucke(folder.path(), &["config-template"]);
    check(&template, 0, "");
    std::fs::write(folder.path().join("b.toml"), template.stdout).expect("written");
    let checked = brucke(folder.path(), &["check-config", "--config", "b.toml"]);
    check(&checked, 1, "secret_env names the variable BRUCKE_TOKEN_SECRET, which is not set");
    assert_eq!(String::from_utf8_lossy(&checked.stderr).lines().count(), 1);
}

#[test]
fn the_configuration_that_is_printed_fits_in_any_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("keys")).expect("a folder in it");
    let key = brucke(folder.path(), &["token", "new-key", "--out", "keys/dev.pem"]);
    let file = std::fs::canonicalize(folder.path()).expect("it is there").join("keys/dev.pub.pem");
    check(&key, 0, &format!("pem_file = \"{}\"", file.display()));
}

/// Makes a key and a token with the commands; the configuration that they print
/// must believe the token.
fn check_token(algorithm: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let made = ["token", "new-key", "--algorithm", algorithm, "--out", "dev.pem"];
    let key = brucke(folder.path(), &made);
    check(&key, 0, "[[auth.issuers]]");
    check(&brucke(folder.path(), &made), 1, "dev.pem can't be written");
    let minted = brucke(
        folder.path(),
        &[
            "token",
            "mint",
            "--key",
            "dev.pem",
            "--tenant",
            "acme",
            "--sub",
            "u1",
            "--channels",
            "orders,prices",
            "--claim",
            "region=eu",
            "--ttl",
            "1h",
        ],
    );
    check(&minted, 0, "[[auth.issuers]]");
    assert_eq!(minted.stderr, key.stderr, "both commands print the same configuration");
    let snippet = String::from_utf8(minted.stderr).expect("UTF-8");
    let toml = format!(
        "kafka.bootstrap_servers = [\"k:9092\"]\n{snippet}\n[[channels]]\nname = \"orders\"\n\
         topic = \"orders\"\ntenant = \"shared\"\nkey_prefix = \"{{region}}:\"\n",
    );
    let path = folder.path().join("b.toml");
    std::fs::write(&path, toml).expect("written");
    let config = config::load(Some(&path), std::iter::empty()).expect("valid");
    let verifier = Verifier::new(config.auth, config.channels.claims());
    let token = Token::new(String::from_utf8(minted.stdout).expect("UTF-8").trim_end().to_owned());
    let now = Timestamp::from_millis(jiff::Timestamp::now().as_millisecond());
    let principal = verifier.verify(&token, now).expect("good");
    assert_eq!((principal.tenant.as_str(), principal.subject.as_deref()), ("acme", Some("u1")));
    assert_eq!(principal.claims.get("region").map(|text| &**text), Some("eu"));
}

#[test]
fn a_minted_token_is_believed_with_the_configuration_that_is_printed() {
    for algorithm in ["HS256", "RS256", "ES256", "EdDSA"] {
        check_token(algorithm);
    }
}

#[cfg(unix)]
#[test]
fn a_private_key_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;

    let folder = tempfile::tempdir().expect("a folder");
    check(&brucke(folder.path(), &["token", "new-key", "--out", "dev.pem"]), 0, "dev.pub.pem");
    let mode = |name: &str| {
        let meta = std::fs::metadata(folder.path().join(name)).expect("the file is there");
        meta.permissions().mode() & 0o777
    };
    assert_eq!(mode("dev.pem"), 0o600);
    assert_eq!(mode("dev.pub.pem") & 0o044, 0o044);
    assert!(mode("dev.pub.pem") & 0o022 == 0);
}
