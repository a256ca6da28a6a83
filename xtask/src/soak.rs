// SPDX-License-Identifier: MIT
//! `cargo xtask soak` and `fuzz`: long runs of generated cases, in chunks.
//!
//! Always true: a case depends on the seed and its number only, so a failure is repeated by the command
//! that is printed with it; after each chunk the state is in `target/soak/NAME.json`, and an interrupted
//! soak goes on from there; what is run is built once, before the first chunk, and kept in
//! `target/soak/NAME`, so that a soak of hours tests one program while its sources change. Not here: the
//! cases (each soak is an example program of the crate it tests, taking `--seed`, `--first` and `--count`),
//! what they are built with (the profile `checked`).

use crate::command::Cmd;
use crate::workspace::{self, Profile};
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

/// One soak.
struct Soak {
    name: &'static str,
    about: &'static str,
    package: &'static str,
    example: &'static str,
    /// Whether the example starts `openvmm`.
    starts_openvmm: bool,
    /// Cases of a full run; CI runs a hundredth.
    count: u64,
    /// Cases between two saved states.
    chunk: u64,
}

const SOAKS: &[Soak] = &[
    Soak {
        name: "mutate",
        about: "mutated IGVM files through reader, plan, move, bind and encoder: no panic, no large allocation",
        package: "vm_loaders",
        example: "mutate",
        starts_openvmm: false,
        count: 10_000_000,
        chunk: 500_000,
    },
    Soak {
        name: "commands",
        about: "mutated IGVM files through check, portability, diff and measure: no panic, bounded memory",
        package: "igvmtool",
        example: "commands",
        starts_openvmm: false,
        count: 10_000_000,
        chunk: 100_000,
    },
    Soak {
        name: "pictures",
        about: "mutated IGVM files through inspect's overview, JSON, SVG and HTML: no panic, bounded memory",
        package: "igvmtool",
        example: "pictures",
        starts_openvmm: false,
        count: 100_000,
        chunk: 50_000,
    },
    Soak {
        name: "differential",
        about: "random instructions on the engine and on the host processor: same registers, flags and memory",
        package: "x86emu",
        example: "differential",
        starts_openvmm: false,
        count: 1_000_000_000,
        chunk: 10_000_000,
    },
    Soak {
        name: "random-code",
        about: "random bytes in all modes on the engine, an hour of CPU: no panic, no hang, blocks equal steps",
        package: "x86emu",
        example: "random_code",
        starts_openvmm: false,
        count: 2_800_000,
        chunk: 50_000,
    },
    Soak {
        name: "guest-devices",
        about: "random guest operations on OVMF and Hyper-V machines, 1000 on each, 10^7 on each device, with flash and battery",
        package: "chipset",
        example: "guest_fuzz",
        starts_openvmm: false,
        count: 500_000,
        chunk: 10_000,
    },
    Soak {
        name: "pci-devices",
        about: "random rings, queues, registers and configuration space of virtio and NVMe devices, 1000 operations each",
        package: "virtio",
        example: "device_fuzz",
        starts_openvmm: false,
        count: 60_000,
        chunk: 2000,
    },
    Soak {
        name: "hyperv",
        about: "Hyper-V guests: 1000 operations on one of 8 channels, host at work, 500 on registers, hypercalls, messages, rings",
        package: "vmbus",
        example: "hyperv_fuzz",
        starts_openvmm: false,
        count: 80_000,
        chunk: 2000,
    },
    Soak {
        name: "tpm",
        about: "random registers, ports and commands of a TPM whose program is late, wrong or gone, 1000 operations each",
        package: "tpm",
        example: "tpm_fuzz",
        starts_openvmm: false,
        count: 10_000,
        chunk: 500,
    },
    Soak {
        name: "vnc",
        about: "clients of the VNC server that greet wrongly, send anything, never read or leave, 1000 messages each case",
        package: "vnc",
        example: "vnc_fuzz",
        starts_openvmm: false,
        count: 10_000,
        chunk: 500,
    },
    Soak {
        name: "uefi-device",
        about: "random commands, logs and events of the UEFI device, its generation id, the guest's watchdog, 1000 on each",
        package: "uefi_device",
        example: "uefi_fuzz",
        starts_openvmm: false,
        count: 10_000,
        chunk: 1000,
    },
    Soak {
        name: "kill-nvram",
        about: "a process killed while it writes UEFI variables of --nvram: nothing that was reported written is lost",
        package: "uefi_nvram",
        example: "kill_nvram",
        starts_openvmm: false,
        count: 500,
        chunk: 50,
    },
    Soak {
        name: "kill-vars",
        about: "VMs killed while they write UEFI variables: no variable that was reported written is lost",
        package: "vmm_tests",
        example: "kill_vars",
        starts_openvmm: true,
        count: 500,
        chunk: 5,
    },
];

/// The seed that a soak uses unless told otherwise, so that CI is reproducible.
const SEED: u64 = 0x1672_1234;

/// Options of `soak`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which soak; without it, the soaks are listed.
    name: Option<String>,
    /// Number of cases instead of the full count.
    #[arg(long)]
    count: Option<u64>,
    /// Seed instead of the fixed one.
    #[arg(long)]
    seed: Option<u64>,
    /// Begins anew even if an earlier run was interrupted.
    #[arg(long)]
    restart: bool,
}

/// Options of `fuzz`.
#[derive(Debug, clap::Args)]
pub(crate) struct FuzzArgs {
    /// Which soak's cases.
    #[arg(default_value = "mutate")]
    name: String,
    /// How long.
    #[arg(long, default_value_t = 10)]
    minutes: u64,
}

/// How far a soak is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    seed: u64,
    count: u64,
    done: u64,
}

/// Runs one soak, or lists them.
pub(crate) fn run(args: &Args) -> Result<()> {
    let Some(name) = &args.name else {
        for soak in SOAKS {
            println!("{:<13} {:>10} cases  {}", soak.name, soak.count, soak.about);
        }
        return Ok(());
    };
    let soak = find(name)?;
    let count = args.count.unwrap_or(soak.count);
    let wanted = State {
        seed: args.seed.unwrap_or(SEED),
        count,
        done: 0,
    };
    let path = state_path(soak);
    let state = if args.restart {
        wanted
    } else {
        resumed(wanted, std::fs::read_to_string(&path).ok())
    };
    if state.done > 0 {
        println!(
            "soak {}: going on after {} of {} cases",
            soak.name, state.done, state.count
        );
    }
    run_from(soak, state)
}

/// A hundredth of every soak, from the beginning.
pub(crate) fn run_reduced() -> Result<()> {
    SOAKS.iter().try_for_each(|soak| {
        run_from(
            soak,
            State {
                seed: SEED,
                count: soak.count / 100,
                done: 0,
            },
        )
    })
}

/// Chunks with seeds of the clock until the time is up.
pub(crate) fn fuzz(args: &FuzzArgs) -> Result<()> {
    let soak = find(&args.name)?;
    let limit = Duration::from_secs(args.minutes.saturating_mul(60));
    let built = Built::new(soak)?;
    let start = Instant::now();
    while start.elapsed() < limit {
        let seed = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)?
            .as_nanos() as u64;
        built.run_chunk(soak, seed, 0, soak.chunk)?;
    }
    Ok(())
}

fn find(name: &str) -> Result<&'static Soak> {
    let names: Vec<_> = SOAKS.iter().map(|soak| soak.name).collect();
    SOAKS
        .iter()
        .find(|soak| soak.name == name)
        .with_context(|| format!("there is no soak {name}; there are: {}", names.join(", ")))
}

fn state_path(soak: &Soak) -> PathBuf {
    workspace::target_dir()
        .join("soak")
        .join(soak.name)
        .with_extension("json")
}

/// The saved state if it belongs to the run that is wanted and is not complete.
fn resumed(wanted: State, saved: Option<String>) -> State {
    let saved = saved.and_then(|text| serde_json::from_str::<State>(&text).ok());
    saved
        .filter(|saved| saved.seed == wanted.seed && saved.count == wanted.count && saved.done < saved.count)
        .unwrap_or(wanted)
}

fn run_from(soak: &Soak, mut state: State) -> Result<()> {
    println!(
        "soak {}: {} cases, seed {:#x}",
        soak.name, state.count, state.seed
    );
    let path = state_path(soak);
    let built = Built::new(soak)?;
    let start = Instant::now();
    while state.done < state.count {
        let count = soak.chunk.min(state.count - state.done);
        built.run_chunk(soak, state.seed, state.done, count)?;
        state.done += count;
        std::fs::write(&path, serde_json::to_string(&state)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    println!(
        "soak {}: {} cases passed in {:.0} s",
        soak.name,
        state.count,
        start.elapsed().as_secs_f64()
    );
    Ok(())
}

/// What a soak runs: copies, which later builds leave alone.
struct Built {
    example: PathBuf,
    /// For an example that starts it.
    openvmm: Option<PathBuf>,
}

impl Built {
    fn new(soak: &Soak) -> Result<Self> {
        let folder = state_path(soak).with_extension("");
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let kept = |from: PathBuf, name: &str| -> Result<PathBuf> {
            let to = folder.join(name);
            // A program that an older soak still runs is replaced, not written over.
            let new = folder.join("new");
            std::fs::copy(&from, &new).with_context(|| format!("cannot copy {}", from.display()))?;
            std::fs::rename(&new, &to).with_context(|| format!("cannot write {}", to.display()))?;
            Ok(to)
        };
        let build = ["build", "--locked", "--quiet", "--package"];
        Cmd::cargo(build)
            .args([soak.package, "--profile", "checked", "--example", soak.example])
            .run()?;
        let examples = workspace::target_dir().join("checked/examples");
        let example = kept(examples.join(soak.example), soak.example)?;
        let openvmm = if soak.starts_openvmm {
            Cmd::cargo(build).args(["openvmm_entry", "--release"]).run()?;
            Some(kept(workspace::binary("openvmm", Profile::Release), "openvmm")?)
        } else {
            None
        };
        Ok(Self { example, openvmm })
    }

    fn run_chunk(&self, soak: &Soak, seed: u64, first: u64, count: u64) -> Result<()> {
        let [seed, first, count] = [seed, first, count].map(|number| number.to_string());
        let numbers = ["--seed", &seed, "--first", &first, "--count", &count];
        let mut cmd = Cmd::new(&workspace::shown(&self.example), numbers);
        if let Some(openvmm) = &self.openvmm {
            cmd = cmd.env("OPENVMM_BIN", &openvmm.display().to_string());
        }
        let text = cmd.text().to_owned();
        if let Err(error) = cmd.run() {
            bail!("soak {} failed; repeat with `{text}`: {error:#}", soak.name);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: State = State {
        seed: 7,
        count: 100,
        done: 0,
    };

    #[test]
    fn interrupted_soak_goes_on() {
        let saved = Some(r#"{"seed":7,"count":100,"done":40}"#.to_owned());
        assert_eq!(resumed(WANTED, saved).done, 40);
    }

    #[test]
    fn other_seed_other_count_complete_or_unreadable_state_begins_anew() {
        for saved in [
            r#"{"seed":8,"count":100,"done":40}"#,
            r#"{"seed":7,"count":99,"done":40}"#,
            r#"{"seed":7,"count":100,"done":100}"#,
            "{",
        ] {
            assert_eq!(resumed(WANTED, Some(saved.to_owned())), WANTED, "{saved}");
        }
        assert_eq!(resumed(WANTED, None), WANTED);
    }

    #[test]
    fn unknown_soak_lists_the_known_ones() {
        let error = find("nothing").err().unwrap().to_string();
        assert!(
            error.starts_with("there is no soak nothing; there are: mutate, "),
            "{error}"
        );
        assert!(SOAKS.iter().all(|soak| error.contains(soak.name)), "{error}");
    }
}
