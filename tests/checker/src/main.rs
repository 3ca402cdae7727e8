//! `brucke-checker FOLDER` judges the logs in a folder and prints a table; it
//! ends with 1 where something is wrong and with 2 where it can't read.

use std::path::Path;
use std::process::ExitCode;

use brucke_checker::follower::Limits;
use brucke_checker::judge::judge;

fn main() -> ExitCode {
    let Some(folder) = std::env::args_os().nth(1) else {
        eprintln!("brucke-checker FOLDER: a folder with truth*.jsonl and client*.jsonl");
        return ExitCode::from(2);
    };
    match judge(Path::new(&folder), Limits::default()) {
        Ok(verdict) => {
            print!("{verdict}");
            ExitCode::from(u8::from(!verdict.findings.are_clean()))
        }
        Err(error) => {
            eprintln!("brucke-checker: {error}");
            ExitCode::from(2)
        }
    }
}
