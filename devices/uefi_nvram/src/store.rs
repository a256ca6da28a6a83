// SPDX-License-Identifier: MIT
//! The variable services (UEFI 8.2.1 to 8.2.4), without guests and buffers.
//!
//! Always true: enumeration goes in the order of keys and goes on behind a name that is gone, so it ends
//! whatever is written or deleted meanwhile; variables that this module computes (`SecureBoot`, `SetupMode`
//! and so on) are not non-volatile, are never in the file, and cannot be written by the guest.
//! Not here: signatures ([`crate::auth`]), the file's format ([`crate::file`]).

use crate::auth::{self, Policy, SignedWrite};
use crate::file::{FileError, VariableFile, Variables};
use crate::key::{Key, name};
use crate::{MAX_DATA, MAX_NAME, MAX_STORAGE, OVERHEAD, Status, attribute, signature_list, vendor};
use std::ops::Bound;
use std::path::Path;

/// The bits that exist.
const KNOWN: u32 = 0xFF;
/// Attributes of what is computed.
const COMPUTED: u32 = attribute::BOOT_SERVICE | attribute::RUNTIME;

/// A variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable {
    /// See [`attribute`]; never [`attribute::APPEND`].
    pub attributes: u32,
    /// EFI_TIME of the last signed write, zeros when there was none.
    pub time: [u8; 16],
    /// Who may write a private authenticated variable: see [`crate::auth`]; else zeros.
    pub signer: [u8; 32],
    /// At most [`MAX_DATA`] bytes.
    pub data: Vec<u8>,
}

impl Variable {
    /// One that was not signed.
    pub fn plain(attributes: u32, data: impl Into<Vec<u8>>) -> Self {
        Self {
            attributes,
            time: [0; 16],
            signer: [0; 32],
            data: data.into(),
        }
    }

    fn cost(&self, key: &Key) -> usize {
        OVERHEAD + (key.name().len() + 1) * 2 + self.data.len()
    }
}

/// What QueryVariableInfo tells, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StorageInfo {
    /// Of all variables together.
    pub maximum: u64,
    /// Left of it.
    pub remaining: u64,
    /// Of one variable with its name.
    pub maximum_variable: u64,
}

/// The variables of one VM.
#[derive(Debug, Default)]
pub struct Nvram {
    variables: Variables,
    /// Bytes of the non-volatile variables.
    used: usize,
    file: Option<VariableFile>,
    at_runtime: bool,
    /// Secure boot is wanted; it is on while there is a platform key too.
    secure_boot: bool,
}

impl Nvram {
    /// No variables but the computed ones; they are gone with the process.
    pub fn new() -> Self {
        let mut nvram = Self::default();
        nvram.compute();
        nvram
    }

    /// Variables of the file at `path`, which is made if it is not there.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let (file, variables) = VariableFile::open(path)?;
        let mut nvram = Self {
            used: variables.iter().map(|(key, variable)| variable.cost(key)).sum(),
            variables,
            file: Some(file),
            ..Self::default()
        };
        nvram.compute();
        Ok(nvram)
    }

    /// What a reset does: boot services are back, volatile variables are as after power on.
    pub fn reset(&mut self) {
        self.at_runtime = false;
        self.compute();
    }

    /// The guest has left boot services; what is not for run time is hidden until the next reset.
    pub fn enter_runtime(&mut self) {
        self.at_runtime = true;
    }

    /// Whether boot services have ended.
    pub fn at_runtime(&self) -> bool {
        self.at_runtime
    }

    /// The variable, if the guest may see it now.
    pub fn get(&self, key: &Key) -> Result<&Variable, Status> {
        let found = self.variables.get(key).filter(|variable| self.visible(variable));
        found.ok_or(Status::NotFound)
    }

    /// The first name behind `after`, or the first at all. `after` itself need not exist (any more).
    pub fn next(&self, after: Option<&Key>) -> Result<&Key, Status> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut behind = self.variables.range((from, Bound::Unbounded));
        let next = behind.find(|(_, variable)| self.visible(variable));
        next.map(|(key, _)| key).ok_or(Status::NotFound)
    }

    fn visible(&self, variable: &Variable) -> bool {
        !self.at_runtime || variable.attributes & attribute::RUNTIME != 0
    }

    /// Room for variables with these attributes.
    pub fn query(&self, attributes: u32) -> Result<StorageInfo, Status> {
        check_attributes(attributes)?;
        if attributes & attribute::NON_VOLATILE == 0 {
            return Err(Status::Unsupported);
        }
        let needed = if self.at_runtime {
            attribute::RUNTIME
        } else {
            attribute::BOOT_SERVICE
        };
        if attributes & needed == 0 {
            return Err(Status::InvalidParameter);
        }
        let remaining = MAX_STORAGE.saturating_sub(self.used);
        Ok(StorageInfo {
            maximum: MAX_STORAGE as u64,
            remaining: remaining as u64,
            maximum_variable: remaining.saturating_sub(OVERHEAD).min(MAX_NAME + MAX_DATA) as u64,
        })
    }

    /// SetVariable: writes, appends, deletes.
    pub fn set(&mut self, key: &Key, attributes: u32, data: &[u8]) -> Result<(), Status> {
        if key.is_empty() {
            return Err(Status::InvalidParameter);
        }
        check_attributes(attributes)?;
        check_error_record(key, attributes)?;
        let existing = self.variables.get(key);
        if is_read_only(key) {
            return Err(Status::WriteProtected);
        }
        if let Some(existing) = existing {
            self.may_change(existing)?;
        }
        if attributes & attribute::TIME_BASED != 0 {
            return self.set_signed(key, attributes, data);
        }
        let signed = existing.is_some_and(|existing| existing.attributes & attribute::TIME_BASED != 0);
        if signed {
            return Err(Status::SecurityViolation);
        }
        if auth::policy(key).is_some() {
            return Err(Status::InvalidParameter);
        }
        if data.len() > MAX_DATA {
            return Err(Status::InvalidParameter);
        }
        let append = attributes & attribute::APPEND != 0;
        let no_access = attributes & (attribute::BOOT_SERVICE | attribute::RUNTIME) == 0;
        if no_access || (data.is_empty() && !append) {
            return self.delete(key);
        }
        let attributes = attributes & !attribute::APPEND;
        let Some(existing) = existing else {
            return self.create(key, attributes, data);
        };
        if existing.attributes != attributes {
            return Err(Status::InvalidParameter);
        }
        let mut new = existing.clone();
        if append {
            new.data.extend_from_slice(data);
        } else {
            new.data = data.to_vec();
        }
        self.replace(key, new)
    }

    /// A write whose data begins with its signature.
    fn set_signed(&mut self, key: &Key, attributes: u32, data: &[u8]) -> Result<(), Status> {
        let append = attributes & attribute::APPEND != 0;
        let stored = attributes & !attribute::APPEND;
        let existing = self.variables.get(key);
        if existing.is_some_and(|existing| existing.attributes != stored) {
            return Err(Status::InvalidParameter);
        }
        if stored & attribute::NON_VOLATILE == 0 || (self.at_runtime && stored & attribute::RUNTIME == 0) {
            return Err(Status::InvalidParameter);
        }
        let write = SignedWrite::split(data)?;
        if write.content.len() > MAX_DATA {
            return Err(Status::InvalidParameter);
        }
        let policy = auth::policy(key);
        let signer = match policy {
            Some(policy) => self.check_policy(policy, key, attributes, &write)?,
            None => write.identity(key, attributes)?,
        };
        let old_time = existing.map_or([0; 16], |existing| existing.time);
        let later = existing.is_none() || write.is_after(&old_time);
        if existing.is_some_and(|existing| existing.signer != signer) || !(later || append) {
            return Err(Status::SecurityViolation);
        }
        if write.content.is_empty() && !append {
            return self.delete(key);
        }
        let old = existing.map_or(&[][..], |existing| &existing.data[..]);
        let data = match (append, policy) {
            (false, _) => write.content.to_vec(),
            (true, None) => [old, write.content].concat(),
            (true, Some(_)) => append_lists(old, write.content)?,
        };
        if data.is_empty() {
            return Ok(());
        }
        let new = Variable {
            attributes: stored,
            time: if later { write.time } else { old_time },
            signer,
            data,
        };
        self.replace(key, new)
    }

    /// Whether a variable of secure boot may be written so. These have no signer of their own.
    fn check_policy(
        &self,
        policy: Policy,
        key: &Key,
        attributes: u32,
        write: &SignedWrite<'_>,
    ) -> Result<[u8; 32], Status> {
        if attributes & !attribute::APPEND != attribute::USUAL | attribute::TIME_BASED {
            return Err(Status::InvalidParameter);
        }
        if self.has_platform_key() {
            let keys = policy.signers();
            let keys: Vec<&[u8]> = keys
                .iter()
                .filter_map(|key| self.variables.get(key))
                .map(|variable| &variable.data[..])
                .collect();
            write.check_keys(key, attributes, &keys)?;
        }
        policy.check_content(write.content)?;
        Ok([0; 32])
    }

    fn has_platform_key(&self) -> bool {
        self.variables.contains_key(&name(vendor::GLOBAL, "PK"))
    }

    /// Wants secure boot, or not. It is on from here on if there is a platform key.
    pub fn want_secure_boot(&mut self, wanted: bool) {
        self.secure_boot = wanted;
        self.compute();
    }

    /// Whether secure boot is on.
    pub fn secure_boot(&self) -> bool {
        self.secure_boot && self.has_platform_key()
    }

    /// Whether the guest may write what is there.
    fn may_change(&self, existing: &Variable) -> Result<(), Status> {
        if !self.at_runtime {
            return Ok(());
        }
        match existing.attributes & (attribute::RUNTIME | attribute::NON_VOLATILE) {
            attribute::RUNTIME => Err(Status::WriteProtected),
            0 | attribute::NON_VOLATILE => Err(Status::InvalidParameter),
            _ => Ok(()),
        }
    }

    fn create(&mut self, key: &Key, attributes: u32, data: &[u8]) -> Result<(), Status> {
        // The guest's firmware keeps volatile variables.
        if attributes & attribute::NON_VOLATILE == 0 {
            return Err(Status::InvalidParameter);
        }
        if self.at_runtime && attributes & attribute::RUNTIME == 0 {
            return Err(Status::InvalidParameter);
        }
        // Nothing is appended to nothing.
        if data.is_empty() {
            return Ok(());
        }
        self.replace(key, Variable::plain(attributes, data))
    }

    /// Puts `variable` in place of what is there. On an error nothing has changed.
    fn replace(&mut self, key: &Key, variable: Variable) -> Result<(), Status> {
        if variable.data.len() > MAX_DATA {
            return Err(Status::OutOfResources);
        }
        let old = self.variables.get(key);
        if old == Some(&variable) {
            return Ok(());
        }
        let freed = old.map_or(0, |old| old.cost(key));
        let used = self.used - freed + variable.cost(key);
        if used > MAX_STORAGE && used > self.used {
            return Err(Status::OutOfResources);
        }
        let old = self.variables.insert(key.clone(), variable);
        self.commit(key, old, used)
    }

    fn delete(&mut self, key: &Key) -> Result<(), Status> {
        let old = self.variables.remove(key).ok_or(Status::NotFound)?;
        let used = self.used - old.cost(key);
        self.commit(key, Some(old), used)
    }

    /// Writes the file; if that fails, takes the change back.
    fn commit(&mut self, key: &Key, old: Option<Variable>, used: usize) -> Result<(), Status> {
        if let Some(file) = &mut self.file {
            let kept = self.variables.iter().filter(|(_, v)| is_kept(v));
            let kept: Variables = kept.map(|(key, v)| (key.clone(), v.clone())).collect();
            if let Err(error) = file.write(&kept) {
                tracing::error!("--nvram: {key} is not written: {error}");
                match old {
                    Some(old) => self.variables.insert(key.clone(), old),
                    None => self.variables.remove(key),
                };
                return Err(Status::DeviceError);
            }
        }
        self.used = used;
        if auth::policy(key) == Some(Policy::PlatformKey) {
            self.compute();
        }
        Ok(())
    }

    /// Gives a variable to a guest that has none of this name. The host's doing: no rule of SetVariable holds.
    pub fn preset(&mut self, key: &Key, variable: Variable) -> Result<(), Status> {
        if self.variables.contains_key(key) {
            return Ok(());
        }
        self.replace(key, variable)
    }

    /// Gives a guest in setup mode the keys of secure boot; `false` when it has a platform key of its own,
    /// which stays with all others.
    pub fn enroll(&mut self, keys: Vec<(Key, Variable)>) -> Result<bool, Status> {
        if self.has_platform_key() {
            return Ok(false);
        }
        // The platform key last: until then nothing is enrolled.
        let pk = name(vendor::GLOBAL, "PK");
        let (last, first): (Vec<_>, Vec<_>) = keys.into_iter().partition(|(key, _)| *key == pk);
        for (key, variable) in first.into_iter().chain(last) {
            self.replace(&key, variable)?;
        }
        Ok(true)
    }

    /// A write by the host in the guest's name, which no phase of the guest forbids.
    pub fn set_by_host(&mut self, key: &Key, variable: Variable) -> Result<(), Status> {
        self.replace(key, variable)
    }

    /// Sets the variables that say in which mode the platform is (UEFI 3.3, 32.3).
    fn compute(&mut self) {
        for (text, value) in [
            ("SecureBoot", self.secure_boot()),
            ("SetupMode", !self.has_platform_key()),
        ] {
            let variable = Variable::plain(COMPUTED, [u8::from(value)]);
            self.variables.insert(name(vendor::GLOBAL, text), variable);
        }
    }
}

/// Signature lists behind those that are there, without what is there already.
fn append_lists(old: &[u8], new: &[u8]) -> Result<Vec<u8>, Status> {
    let lists = |data| signature_list::parse(data).ok_or(Status::InvalidParameter);
    let fresh = signature_list::without(&lists(new)?, &lists(old)?);
    Ok([old, &fresh].concat())
}

fn is_kept(variable: &Variable) -> bool {
    variable.attributes & attribute::NON_VOLATILE != 0
}

/// Combinations that no variable may have (UEFI 8.2.1).
fn check_attributes(attributes: u32) -> Result<(), Status> {
    if attributes & !KNOWN != 0 {
        return Err(Status::InvalidParameter);
    }
    if attributes & (attribute::AUTHENTICATED | attribute::ENHANCED) != 0 {
        return Err(Status::Unsupported);
    }
    let visible = attributes & (attribute::RUNTIME | attribute::BOOT_SERVICE);
    if visible == attribute::RUNTIME {
        return Err(Status::InvalidParameter);
    }
    Ok(())
}

/// Error records are named `HwErrRec` and four digits, and are kept and visible always (UEFI 8.2.4.2).
fn check_error_record(key: &Key, attributes: u32) -> Result<(), Status> {
    if attributes & attribute::HARDWARE_ERROR == 0 {
        return Ok(());
    }
    let name = String::from_utf16_lossy(key.name());
    let digits = name.strip_prefix("HwErrRec").unwrap_or_default();
    let named = digits.len() == 4 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    let usual = attributes & attribute::USUAL == attribute::USUAL;
    if key.vendor() == vendor::HARDWARE_ERROR && named && usual {
        Ok(())
    } else {
        Err(Status::InvalidParameter)
    }
}

/// Variables that say what the platform is, and that only the platform sets (UEFI 3.3).
fn is_read_only(key: &Key) -> bool {
    const NAMES: [&str; 11] = [
        "SecureBoot",
        "SetupMode",
        "SignatureSupport",
        "VendorKeys",
        "AuditMode",
        "DeployedMode",
        "PKDefault",
        "KEKDefault",
        "dbDefault",
        "dbxDefault",
        "dbtDefault",
    ];
    NAMES.iter().any(|text| key.is(vendor::GLOBAL, text))
}
