// SPDX-License-Identifier: MIT
//! SEV and SEV-ES guests: state, launch digest, memory key (`spec/sev.md` 2.1 to 2.3, 4.3).
//!
//! Always true: a command in the wrong state changes nothing; memory is encrypted 16 bytes at a time with
//! the guest's key and the physical address, so the same bytes elsewhere look different, and encrypting
//! twice gives noise to host and guest alike. Not here: pinning and address translation.

use super::Psp;
use super::session::Blobs;
use crate::firmware::status;
use aes::Aes128;
use aes::cipher::{Block, BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

const NO_DEBUG: u32 = 1;
const NO_KEY_SHARING: u32 = 2;
const ES: u32 = 4;
/// The bytes of a block of memory encryption.
const BLOCK: usize = 16;
/// Length of a launch measurement.
const MEASUREMENT: u32 = 48;

/// State of a guest, as GUEST_STATUS tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Update = 1,
    Secret = 2,
    Running = 3,
}

/// A guest.
#[derive(Clone)]
pub(crate) struct SevGuest {
    pub(crate) state: State,
    pub(crate) policy: u32,
    pub(crate) asid: Option<u32>,
    stream: Sha256,
    pub(crate) tek: [u8; 16],
    pub(crate) tik: [u8; 16],
    memory_key: [u8; 16],
    /// The HMAC of LAUNCH_MEASURE and its nonce.
    pub(crate) measurement: Option<[u8; 48]>,
}

impl std::fmt::Debug for SevGuest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SevGuest({:?}, policy {:#x})", self.state, self.policy)
    }
}

impl Psp {
    /// LAUNCH_START: a new handle. `shared` names a guest whose keys are used, 0 for none.
    pub(crate) fn launch_start(
        &mut self,
        policy: u32,
        shared: u32,
        blobs: Option<&Blobs>,
    ) -> Result<u32, u32> {
        if self.is_older_than((policy >> 16) as u8, (policy >> 24) as u8) {
            return Err(status::POLICY_FAILURE);
        }
        let (mut tek, mut tik, mut memory_key) = (self.random_key(), self.random_key(), self.random_key());
        if let Some(blobs) = blobs {
            (tek, tik) = self.unwrap_session(blobs, policy)?;
        }
        if shared != 0 {
            let other = self.guests.get(&shared).ok_or(status::INVALID_GUEST)?;
            if (other.policy | policy) & NO_KEY_SHARING != 0 {
                return Err(status::POLICY_FAILURE);
            }
            memory_key = other.memory_key;
        }
        self.handles += 1;
        let guest = SevGuest {
            state: State::Update,
            policy,
            asid: None,
            stream: Sha256::new(),
            tek,
            tik,
            memory_key,
            measurement: None,
        };
        self.guests.insert(self.handles, guest);
        Ok(self.handles)
    }

    /// ACTIVATE. `for_es` says which range the ASID is of.
    pub(crate) fn activate(&mut self, handle: u32, asid: u32, for_es: bool) -> Result<(), u32> {
        let owned = self.guests.values().any(|guest| guest.asid == Some(asid));
        if owned {
            return Err(status::ASID_OWNED);
        }
        let guest = self.guests.get_mut(&handle).ok_or(status::INVALID_GUEST)?;
        if (guest.policy & ES != 0) != for_es {
            return Err(status::INVALID_ASID);
        }
        guest.asid = Some(asid);
        Ok(())
    }

    /// The guest in one of the states that a command takes.
    pub(crate) fn guest_in(&mut self, handle: u32, states: &[State]) -> Result<&mut SevGuest, u32> {
        let guest = self.guests.get_mut(&handle).ok_or(status::INVALID_GUEST)?;
        if states.contains(&guest.state) {
            Ok(guest)
        } else {
            Err(status::INVALID_GUEST_STATE)
        }
    }

    /// LAUNCH_UPDATE_DATA: hashes `bytes` at a physical address and encrypts them.
    pub(crate) fn launch_update(&mut self, handle: u32, physical: u64, bytes: &mut [u8]) -> Result<(), u32> {
        let guest = self.guest_in(handle, &[State::Update])?;
        if !physical.is_multiple_of(BLOCK as u64) {
            return Err(status::INVALID_ADDRESS);
        }
        if !bytes.len().is_multiple_of(BLOCK) {
            return Err(status::INVALID_LEN);
        }
        guest.stream.update(&*bytes);
        guest.encrypt(physical, bytes);
        Ok(())
    }

    /// LAUNCH_MEASURE with room for `room` bytes. On a short one the needed length is told.
    pub(crate) fn launch_measure(&mut self, handle: u32, room: u32) -> Result<[u8; 48], u32> {
        let states: &[State] = if self.measure_repeats {
            &[State::Update, State::Secret]
        } else {
            &[State::Update]
        };
        let nonce = self.random_key();
        let (api, build) = (self.api, self.build);
        let guest = self.guest_in(handle, states)?;
        if room < MEASUREMENT {
            return Err(status::INVALID_LEN);
        }
        let mut mac = guest.mac();
        mac.update(&[4, api.0, api.1, build]);
        mac.update(&guest.policy.to_le_bytes());
        mac.update(&guest.digest());
        mac.update(&nonce);
        let mut answer = [0; 48];
        answer[..32].copy_from_slice(&mac.finalize().into_bytes());
        answer[32..].copy_from_slice(&nonce);
        guest.measurement = Some(answer);
        guest.state = State::Secret;
        Ok(answer)
    }

    /// LAUNCH_FINISH.
    pub(crate) fn launch_finish(&mut self, handle: u32) -> Result<(), u32> {
        self.guest_in(handle, &[State::Update, State::Secret])?.state = State::Running;
        Ok(())
    }

    /// Whether the debug commands may look at a guest.
    pub(crate) fn debug_guest(&mut self, handle: u32) -> Result<&SevGuest, u32> {
        let guest = self.guests.get(&handle).ok_or(status::INVALID_GUEST)?;
        if guest.policy & NO_DEBUG != 0 {
            return Err(status::POLICY_FAILURE);
        }
        Ok(guest)
    }
}

impl SevGuest {
    /// The launch digest so far.
    pub(crate) fn digest(&self) -> [u8; 32] {
        self.stream.clone().finalize().into()
    }

    /// An HMAC with the transport integrity key.
    pub(crate) fn mac(&self) -> Hmac<Sha256> {
        // SHA-256's HMAC takes keys of any length.
        <Hmac<Sha256> as KeyInit>::new_from_slice(&self.tik).expect("a key of 16 bytes")
    }

    /// What the memory controller does to a write: `bytes` are whole blocks.
    pub(crate) fn encrypt(&self, physical: u64, bytes: &mut [u8]) {
        let cipher = Aes128::new(&self.memory_key.into());
        each_block(&cipher, physical, bytes, |cipher, block| {
            cipher.encrypt_block(block);
        });
    }

    /// What it does to a read.
    pub(crate) fn decrypt(&self, physical: u64, bytes: &mut [u8]) {
        let cipher = Aes128::new(&self.memory_key.into());
        each_block(&cipher, physical, bytes, |cipher, block| {
            cipher.decrypt_block(block);
        });
    }
}

/// Block by block between two additions of a value that depends on key and address.
fn each_block(cipher: &Aes128, physical: u64, bytes: &mut [u8], act: impl Fn(&Aes128, &mut Block<Aes128>)) {
    for (bytes, at) in bytes.chunks_exact_mut(BLOCK).zip((physical..).step_by(BLOCK)) {
        let mut tweak = Block::<Aes128>::default();
        tweak[..8].copy_from_slice(&at.to_le_bytes());
        tweak[8] = 1;
        cipher.encrypt_block(&mut tweak);
        let mut block = Block::<Aes128>::default();
        for (to, (from, more)) in block.iter_mut().zip(bytes.iter().zip(&tweak)) {
            *to = from ^ more;
        }
        act(cipher, &mut block);
        for (to, (from, more)) in bytes.iter_mut().zip(block.iter().zip(&tweak)) {
            *to = from ^ more;
        }
    }
}
