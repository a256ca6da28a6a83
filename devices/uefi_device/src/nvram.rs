// SPDX-License-Identifier: MIT
//! NVRAM commands (index 0x24): a descriptor in guest memory becomes a call of `uefi_nvram`, and its results
//! go back in place.
//!
//! Always true: the status is written last; a command that fails writes nothing but what the interface has
//! for that failure. Not here: what calls mean.
//!
//! Descriptor, packed: u32 command, u64 status at 4; for variables u32 attributes at 12, u64 gpa of the name
//! at 16, u32 its bytes at 24, vendor at 28, u64 gpa of the data at 44, u32 its bytes at 52; for
//! QueryVariableInfo u32 attributes at 12, u64 maximum at 16, remaining at 24, maximum of one at 32.

use crate::host_log::{HostLog, Weight};
use guest_memory::{DmaMemory, MemoryError};
use uefi_nvram::{Key, MAX_DATA, MAX_NAME, Nvram, Status};
use uuid::Uuid;

const LEN: usize = 56;
const STATUS: u64 = 4;
const ATTRIBUTES: u64 = 12;
const NAME_BYTES: u64 = 24;
const VENDOR: u64 = 28;
const DATA_BYTES: u64 = 52;
const QUERY_RESULTS: u64 = 16;
/// Data of a signed write has certificates in front; the firmware's buffer has 34 KiB.
const MAX_SIGNED_DATA: usize = 2 * MAX_DATA;

/// Commands.
pub(crate) mod command {
    pub(crate) const GET: u32 = 0;
    pub(crate) const SET: u32 = 1;
    pub(crate) const FIRST_NAME: u32 = 2;
    pub(crate) const NEXT_NAME: u32 = 3;
    pub(crate) const QUERY: u32 = 4;
    pub(crate) const SIGNAL_RUNTIME: u32 = 5;
    pub(crate) const DEBUG_STRING: u32 = 6;
}

/// A read descriptor.
struct Call<'m> {
    memory: &'m DmaMemory,
    gpa: u64,
    bytes: [u8; LEN],
}

/// Carries out the command at `gpa`.
pub(crate) fn handle(
    nvram: &mut Nvram,
    memory: &DmaMemory,
    gpa: u32,
    log: &mut HostLog,
) -> Result<(), MemoryError> {
    let gpa = gpa.into();
    let mut bytes = [0; LEN];
    memory.read(gpa, &mut bytes)?;
    let call = Call { memory, gpa, bytes };
    let result = match call.u32(0) {
        command::GET => call.get(nvram),
        command::SET => call.set(nvram),
        command::FIRST_NAME => call.name_out(nvram.next(None)),
        command::NEXT_NAME => call.next_name(nvram),
        command::QUERY => call.query(nvram),
        command::SIGNAL_RUNTIME => {
            nvram.enter_runtime();
            Ok(())
        }
        command::DEBUG_STRING => call.debug_string(log),
        _ => Err(Status::Unsupported),
    };
    let status = result.map_or_else(|status| status as u64, |()| 0);
    memory.write(gpa + STATUS, &status.to_le_bytes())
}

/// Guest memory that is not there is the caller's mistake.
fn not_ram(_: MemoryError) -> Status {
    Status::InvalidParameter
}

impl Call<'_> {
    fn u32(&self, at: usize) -> u32 {
        let mut field = [0; 4];
        field.copy_from_slice(&self.bytes[at..at + 4]);
        u32::from_le_bytes(field)
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from(self.u32(at)) | u64::from(self.u32(at + 4)) << 32
    }

    fn put(&self, at: u64, bytes: &[u8]) -> Result<(), Status> {
        self.memory.write(self.gpa + at, bytes).map_err(not_ram)
    }

    fn read(&self, gpa: u64, len: u32, most: usize) -> Result<Vec<u8>, Status> {
        if len as usize > most {
            return Err(Status::InvalidParameter);
        }
        let mut bytes = vec![0; len as usize];
        if !bytes.is_empty() {
            self.memory.read(gpa, &mut bytes).map_err(not_ram)?;
        }
        Ok(bytes)
    }

    fn name(&self) -> Result<Vec<u8>, Status> {
        self.read(self.u64(16), self.u32(24), MAX_NAME)
    }

    fn key(&self) -> Result<Key, Status> {
        let mut vendor = [0; 16];
        vendor.copy_from_slice(&self.bytes[28..44]);
        Key::from_buffer(Uuid::from_bytes_le(vendor), &self.name()?).map_err(|_| Status::InvalidParameter)
    }

    fn get(&self, nvram: &Nvram) -> Result<(), Status> {
        let key = self.key()?;
        let variable = nvram.get(&key)?;
        let (to, room) = (self.u64(44), self.u32(52) as usize);
        let short = to == 0 || room < variable.data.len();
        if !short {
            self.memory.write(to, &variable.data).map_err(not_ram)?;
        }
        self.put(ATTRIBUTES, &variable.attributes.to_le_bytes())?;
        self.put(DATA_BYTES, &(variable.data.len() as u32).to_le_bytes())?;
        if short {
            Err(Status::BufferTooSmall)
        } else {
            Ok(())
        }
    }

    fn set(&self, nvram: &mut Nvram) -> Result<(), Status> {
        let key = self.key()?;
        let data = self.read(self.u64(44), self.u32(52), MAX_SIGNED_DATA)?;
        nvram.set(&key, self.u32(12), &data)
    }

    fn next_name(&self, nvram: &Nvram) -> Result<(), Status> {
        let last = self.key()?;
        let after = (!last.is_empty()).then_some(&last);
        self.name_out(nvram.next(after))
    }

    fn name_out(&self, next: Result<&Key, Status>) -> Result<(), Status> {
        let next = next?;
        let name = next.name_bytes();
        let short = self.u32(24) < name.len() as u32;
        if !short {
            self.memory.write(self.u64(16), &name).map_err(not_ram)?;
            self.put(VENDOR, &next.vendor().to_bytes_le())?;
        }
        self.put(NAME_BYTES, &(name.len() as u32).to_le_bytes())?;
        if short {
            Err(Status::BufferTooSmall)
        } else {
            Ok(())
        }
    }

    fn query(&self, nvram: &Nvram) -> Result<(), Status> {
        let info = nvram.query(self.u32(12))?;
        let fields = [info.maximum, info.remaining, info.maximum_variable];
        self.put(QUERY_RESULTS, fields.map(u64::to_le_bytes).as_flattened())
    }

    fn debug_string(&self, log: &mut HostLog) -> Result<(), Status> {
        let units = self.name()?;
        let units = units
            .chunks_exact(2)
            .map(|unit| u16::from_le_bytes([unit[0], unit[1]]));
        let text = char::decode_utf16(units.take_while(|&unit| unit != 0));
        let text: String = text.map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
        log.line(Weight::Detail, &format!("nvram: {text}"));
        Ok(())
    }
}
