// SPDX-License-Identifier: MIT
//! The device of Microsoft's UEFI, from the configuration: variables, and where they are kept; and what else
//! the firmware is told of: the guest's watchdog, the battery.
//!
//! Always true: the variables that put the console on a serial port are there before the firmware asks, unless
//! the file has others. Not here: what the device does (`uefi_device`).

use crate::entropy::EntropySource;
use anyhow::Context;
use chipset::PortWidth;
use chipset::battery::{self, Battery, Charge};
use chipset::machine::{Composition, World};
use chipset_device::Device;
use guest_memory::DmaMemory;
use openvmm_defs::{Config, FirmwareLogLevel, UefiConsoleMode, UefiSettings};
use std::sync::{Arc, Mutex};
use uefi_device::{
    ComPort, GUEST_WATCHDOG_PORTS, GuestWatchdog, LogLevel, PORTS, UefiConfig, UefiDevice, UefiWorld,
    console_variables,
};
use uefi_nvram::{Nvram, template};

/// Makes the seed of a deterministic VM's device differ from that of its launch.
const SEED: u64 = 0x005E_ED0F_0EF1;

/// The devices that the worker talks to.
pub(crate) struct UefiDevices {
    /// The firmware's own.
    pub(crate) bios: Arc<Mutex<UefiDevice>>,
    /// `--battery`.
    pub(crate) battery: Option<Arc<Mutex<Battery>>>,
}

/// What the battery says until somebody says otherwise at the prompt.
const FULL: Charge = Charge {
    percent: 100,
    mains: true,
};

/// Adds what `settings` ask for to `machine`.
pub(crate) fn add(
    machine: &mut Composition,
    config: &Config,
    settings: &UefiSettings,
    world: &World,
    memory: DmaMemory,
) -> anyhow::Result<UefiDevices> {
    let bios = add_bios(machine, config, settings, world, memory)?;
    if settings.watchdog {
        let device = world.timed(|timer| GuestWatchdog::new(world.clock.clone(), timer, world.power.clone()));
        let ports = GUEST_WATCHDOG_PORTS;
        machine
            .builder
            .add_ports("guest_watchdog", ports, PortWidth::Any, device.clone())?;
        machine.builder.add_device("guest_watchdog", device);
    }
    let battery = settings.battery.then(|| Arc::new(Mutex::new(Battery::new(FULL))));
    if let Some(battery) = &battery {
        machine
            .builder
            .add_mmio("battery", battery::GPA, battery::LEN, battery.clone())?;
        machine.builder.add_device("battery", battery.clone());
    }
    Ok(UefiDevices { bios, battery })
}

fn add_bios(
    machine: &mut Composition,
    config: &Config,
    settings: &UefiSettings,
    world: &World,
    memory: DmaMemory,
) -> anyhow::Result<Arc<Mutex<UefiDevice>>> {
    let mut entropy = EntropySource::new(config.deterministic.map(|seed| seed ^ SEED));
    let mut generation_id = [0; 16];
    entropy.fill(&mut generation_id)?;
    let nvram = nvram(config, settings)?;
    let device = world.timed(|timer| {
        let world = UefiWorld {
            memory,
            clock: world.clock.clone(),
            timer,
            power: world.power.clone(),
            random: Box::new(move |bytes| entropy.fill(bytes).map_err(|error| error.to_string())),
        };
        let config = UefiConfig {
            nvram,
            generation_id,
            log_level: match settings.log_level {
                FirmwareLogLevel::Default => LogLevel::Problems,
                FirmwareLogLevel::Info => LogLevel::Information,
                FirmwareLogLevel::Full => LogLevel::Everything,
            },
        };
        UefiDevice::new(config, world)
    });
    machine
        .builder
        .add_ports("uefi", PORTS, PortWidth::Any, device.clone())?;
    machine
        .builder
        .add_device("uefi", device.clone() as Arc<Mutex<dyn Device>>);
    Ok(device)
}

fn nvram(config: &Config, settings: &UefiSettings) -> anyhow::Result<Nvram> {
    let mut nvram = match &config.nvram {
        Some(path) => Nvram::open(path).with_context(|| format!("--nvram {}", path.display()))?,
        None => Nvram::new(),
    };
    let port = match settings.console_mode {
        UefiConsoleMode::Com1 => Some(ComPort::Com1),
        UefiConsoleMode::Com2 => Some(ComPort::Com2),
        UefiConsoleMode::Default | UefiConsoleMode::None => None,
    };
    for (key, variable) in port.map(console_variables).into_iter().flatten() {
        if let Err(status) = nvram.preset(&key, variable) {
            anyhow::bail!("--nvram: no room for the variable {key}: {status:?}");
        }
    }
    secure_boot(&mut nvram, settings)?;
    Ok(nvram)
}

/// Enrolls the template's keys where there are none, and turns secure boot on if it is wanted.
fn secure_boot(nvram: &mut Nvram, settings: &UefiSettings) -> anyhow::Result<()> {
    if let Some(path) = &settings.secure_boot_template {
        let option = || format!("--secure-boot-template {}", path.display());
        let file = std::fs::read(path).with_context(option)?;
        let keys = template::read(&file).with_context(option)?;
        match nvram.enroll(keys) {
            Ok(true) => tracing::info!("secure boot: the keys of {} are enrolled", path.display()),
            Ok(false) => tracing::info!("secure boot: the vm has keys, which stay; the template is not used"),
            Err(status) => anyhow::bail!("{}: no room for its keys: {status:?}", option()),
        }
    }
    nvram.want_secure_boot(settings.secure_boot);
    if settings.secure_boot && !nvram.secure_boot() {
        tracing::warn!(
            "secure boot is off until the guest enrolls a platform key (PK); --secure-boot-template FILE gives it one"
        );
    }
    Ok(())
}
