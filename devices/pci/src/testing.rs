// SPDX-License-Identifier: MIT
//! Recorders of what functions ask of their world.

use crate::lock;
use chipset_device::{LineTarget, MsiTarget, Placement};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// A place that remembers where it was last put, and refuses one address.
#[derive(Clone, Default)]
pub(crate) struct Place {
    pub(crate) at: Arc<Mutex<Option<(u64, u64)>>>,
    pub(crate) refuses: Option<u64>,
}

impl Place {
    pub(crate) fn now(&self) -> Option<(u64, u64)> {
        *lock(&self.at)
    }
}

impl Placement for Place {
    fn place(&self, at: Option<(u64, u64)>) -> Result<(), String> {
        if at.is_some_and(|(base, _)| Some(base) == self.refuses) {
            return Err("taken".into());
        }
        *lock(&self.at) = at;
        Ok(())
    }
}

/// Remembers messages and line levels.
#[derive(Default)]
pub(crate) struct Record {
    pub(crate) messages: Mutex<Vec<(u64, u32)>>,
    pub(crate) lines: Mutex<BTreeMap<u32, bool>>,
}

impl Record {
    /// Lines that are high.
    pub(crate) fn high(&self) -> Vec<u32> {
        lock(&self.lines)
            .iter()
            .filter(|(_, level)| **level)
            .map(|(line, _)| *line)
            .collect()
    }
}

impl MsiTarget for Record {
    fn signal_msi(&self, address: u64, data: u32) {
        lock(&self.messages).push((address, data));
    }
}

impl LineTarget for Record {
    fn set_line(&self, line: u32, level: bool) {
        lock(&self.lines).insert(line, level);
    }
}
