// SPDX-License-Identifier: MIT
//! Kills a process that writes UEFI variables, at random moments, and looks whether everything that it
//! reported written is in the file.
//!
//! `cargo run --release -p uefi_nvram --example kill_nvram -- [--seed S] [--first N] [--count N]`
//!
//! One case is one process over the file that the case before left: it reads two variables, writes growing
//! values to them in turn, says each on its output after the write has returned, and dies by SIGKILL. Always
//! true: a file that cannot be read is a failure too. Not here: loss of power on the host.

use soak_case::{Cases, Random};
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;
use uefi_nvram::{Key, Nvram, attribute, name, vendor};

/// Argument that makes this program the writer.
const WRITER: &str = "--write";

/// The variables that are written in turn; one is long, so that writes take their time.
fn keys() -> [(Key, usize); 2] {
    [("Short", 8), ("Long", 30_000)].map(|(text, len)| (name(vendor::GLOBAL, text), len))
}

fn value(nvram: &Nvram, key: &Key) -> Result<u64, String> {
    let Ok(variable) = nvram.get(key) else {
        return Ok(0);
    };
    let number: [u8; 8] = variable.data[..8]
        .try_into()
        .map_err(|_| format!("{key} is cut"))?;
    // The rest of the data repeats the number's last byte: a mixture of two writes is seen.
    if variable.data[8..].iter().any(|&byte| byte != number[0]) {
        return Err(format!("{key} is a mixture"));
    }
    Ok(u64::from_le_bytes(number))
}

/// The highest number in the file.
fn highest(path: &Path) -> Result<u64, String> {
    let nvram = Nvram::open(path).map_err(|error| error.to_string())?;
    let values: Result<Vec<_>, _> = keys().iter().map(|(key, _)| value(&nvram, key)).collect();
    Ok(values?.into_iter().max().unwrap_or_default())
}

/// Writes until death.
fn write(path: &Path) -> Result<(), String> {
    let mut number = highest(path)?;
    let mut nvram = Nvram::open(path).map_err(|error| error.to_string())?;
    let mut out = std::io::stdout();
    loop {
        number += 1;
        let (key, len) = &keys()[(number % 2) as usize];
        let mut data = number.to_le_bytes().to_vec();
        data.resize(*len, number as u8);
        nvram
            .set(key, attribute::USUAL, &data)
            .map_err(|status| format!("{status:?}"))?;
        writeln!(out, "{number}").map_err(|error| error.to_string())?;
    }
}

/// One process and its death; the last number that it reported, or `before`.
fn case(path: &Path, before: u64, delay: Duration) -> Result<u64, String> {
    let text = |error: std::io::Error| error.to_string();
    let own = std::env::current_exe().map_err(text)?;
    let mut child = Command::new(own)
        .args([WRITER.as_ref(), path.as_os_str()])
        .stdout(Stdio::piped())
        .spawn()
        .map_err(text)?;
    let out = child.stdout.take().ok_or("the writer has no output")?;
    let reader = std::thread::spawn(move || {
        let numbers = BufReader::new(out).lines().map_while(Result::ok);
        numbers.filter_map(|line| line.parse::<u64>().ok()).last()
    });
    std::thread::sleep(delay);
    child.kill().map_err(text)?;
    let status = child.wait().map_err(text)?;
    if status.code().is_some() {
        return Err(format!("the writer has ended by itself: {status}"));
    }
    let reported = reader
        .join()
        .map_err(|_| "the reader has died")?
        .unwrap_or(before);
    let found = highest(path)?;
    // One write may have been done and not yet reported.
    if found < reported || found > reported + 1 {
        return Err(format!("{reported} was reported, {found} is in the file"));
    }
    Ok(found)
}

fn run(cases: Cases) -> Result<(), String> {
    let folder = std::env::temp_dir().join(format!("kill_nvram.{}", std::process::id()));
    std::fs::create_dir(&folder).map_err(|error| error.to_string())?;
    let path = folder.join("nvram");
    let mut last = 0;
    let mut outcome = Ok(());
    for number in cases.numbers() {
        let delay = Duration::from_micros(20_000 + Random::of_case(cases.seed, number).below(200_000));
        match case(&path, last, delay) {
            Ok(found) => last = found,
            Err(error) => {
                outcome = Err(format!("seed {}: case {number}: {error}", cases.seed));
                break;
            }
        }
    }
    std::fs::remove_dir_all(&folder).map_err(|error| error.to_string())?;
    outcome?;
    println!("{} kills, {last} writes, none lost", cases.count);
    Ok(())
}

fn main() -> ExitCode {
    let mut given = std::env::args_os().skip(1);
    if let (Some(WRITER), Some(path)) = (given.next().as_deref().and_then(OsStr::to_str), given.next()) {
        let outcome = write(Path::new(&path));
        eprintln!("{outcome:?}");
        return ExitCode::FAILURE;
    }
    match run(Cases::from_command_line(5)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
