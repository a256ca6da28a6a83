// SPDX-License-Identifier: MIT
//! The memory fast path: software TLB, loads, stores, atomics, bulk copies. The only module (beside
//! the native thunk) with `unsafe`.
//!
//! Always true: host pointers come from [`RamPage`], whose constructor states the contract; guest RAM
//! is shared with devices and other processors, so it is accessed with volatile or atomic operations
//! only; a store over translated code bumps the page's generation; a store over the block that is
//! running stops before it happens and is repeated in a block of its own.
//! Not here: page walks, segmentation.

use crate::bus::Bus;
use crate::code_map::chunk_mask;
use crate::core::{Core, Flow, Stop, Why};
use crate::walk::is_canonical;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};
use x86defs::vector;

/// One 4 KiB page of memory that the engine may access directly.
#[derive(Debug, Clone, Copy)]
pub struct RamPage {
    host: *mut u8,
    generation: *const AtomicU32,
    writable: bool,
}

/// Entries per TLB array.
pub(crate) const TLB_SIZE: usize = 512;
/// Translation regimes: supervisor, user, supervisor with SMAP enforced, user with alignment checks.
pub(crate) const REGIMES: usize = 4;
/// The regime whose accesses must be aligned; none of them takes the fast path.
pub(crate) const ALIGNED: usize = 3;
const PAGE_MASK: u64 = !0xFFF;
/// Low tag bits: the page has translated code on it; stores take the slow path.
const TAG_CODE: u64 = 1;
/// Low tag bits: not directly accessible memory.
const TAG_MMIO: u64 = 2;
/// Low tag bits: a breakpoint of the guest is on the page.
const TAG_WATCHED: u64 = 4;
/// Low tag bits: accesses must be aligned.
const TAG_ALIGNED: u64 = 8;
const TAG_NONE: u64 = 0x800;

#[derive(Clone, Copy)]
struct Entry {
    /// Linear page address with flags in the low bits; equal to the page address for the fast path.
    tag: u64,
    /// Host address minus linear address.
    addend: u64,
}

#[derive(Clone, Copy)]
struct Target {
    gpa: u64,
    page: Option<RamPage>,
}

const NO_ENTRY: Entry = Entry {
    tag: TAG_NONE,
    addend: 0,
};

/// One translation regime's entries for one kind of access.
struct Bank {
    hot: [Entry; TLB_SIZE],
    cold: [Target; TLB_SIZE],
    used: bool,
}

impl Bank {
    fn new() -> Box<Self> {
        Box::new(Self {
            hot: [NO_ENTRY; TLB_SIZE],
            cold: [Target { gpa: 0, page: None }; TLB_SIZE],
            used: false,
        })
    }
}

/// The data TLB: read and write banks per regime.
pub(crate) struct Tlb {
    read: [Box<Bank>; REGIMES],
    write: [Box<Bank>; REGIMES],
}

// SAFETY: the pointers inside refer to guest RAM and generation cells, which by the contract of
// `RamPage::new` are shared memory that outlives the engine and may be used from any thread.
unsafe impl Send for Tlb {}

/// Recently used answers of [`Bus::ram`].
pub(crate) struct PageCache {
    pub entries: [(u64, Option<RamPage>); 256],
}

// SAFETY: as for `Tlb`.
unsafe impl Send for PageCache {}

impl PageCache {
    pub(crate) fn new() -> Self {
        Self {
            entries: [(u64::MAX, None); 256],
        }
    }
}

/// The generation cell of a page, and its value when somebody looked.
#[derive(Clone, Copy)]
pub(crate) struct Generation {
    cell: *const AtomicU32,
    seen: u32,
}

// SAFETY: as for `Tlb`.
unsafe impl Send for Generation {}

impl Generation {
    /// Of a page; code outside RAM is always stale.
    pub(crate) fn of(page: Option<&RamPage>) -> Self {
        static NOWHERE: AtomicU32 = AtomicU32::new(0);
        match page {
            Some(p) => Self {
                cell: p.generation,
                seen: p.generation().load(Ordering::Acquire),
            },
            None => Self {
                cell: &raw const NOWHERE,
                seen: 1,
            },
        }
    }
    /// Whether the page was written since.
    #[inline(always)]
    pub(crate) fn moved(&self) -> bool {
        // SAFETY: valid for atomic access by the contract of `RamPage::new`.
        unsafe { (*self.cell).load(Ordering::Relaxed) != self.seen }
    }
}

impl RamPage {
    /// A page whose 4096 bytes are at `host`.
    ///
    /// # Safety
    /// `host` must stay valid for reads (and writes when `writable`) of 4096 bytes, aligned to 4096, and
    /// `generation` valid for atomic access, until the processor is dropped or told to
    /// [`crate::Cpu::flush_memory_map`]; nobody may hold Rust references into the page.
    pub unsafe fn new(host: *mut u8, generation: *const AtomicU32, writable: bool) -> Self {
        Self {
            host,
            generation,
            writable,
        }
    }
    /// A reference to the generation that lives as long as the page's contract says.
    pub(crate) fn generation(&self) -> &AtomicU32 {
        // SAFETY: valid for atomic access by the contract of `new`.
        unsafe { &*self.generation }
    }
    /// Copies out `len` bytes from `offset`; bounds are clipped to the page.
    pub(crate) fn copy_out(&self, offset: usize, out: &mut [u8]) {
        let offset = offset & 0xFFF;
        let n = out.len().min(4096 - offset);
        for (i, b) in out[..n].iter_mut().enumerate() {
            // SAFETY: offset + i < 4096 and the page is readable by the contract of `new`.
            *b = unsafe { self.host.add(offset + i).read_volatile() };
        }
    }
    /// Whether the bytes at `offset` equal `bytes`; never true past the page's end.
    pub(crate) fn equals(&self, offset: usize, bytes: &[u8]) -> bool {
        offset + bytes.len() <= 4096
            && bytes.iter().enumerate().all(|(i, &b)| {
                // SAFETY: offset + i < 4096 and the page is readable by the contract of `new`.
                unsafe { self.host.add(offset + i).read_volatile() == b }
            })
    }
    /// Reads an aligned page-table entry of 4 or 8 bytes.
    pub(crate) fn entry(&self, offset: u64, wide: bool) -> u64 {
        // SAFETY: the offset is masked into the page and aligned to the size read.
        unsafe {
            if wide {
                AtomicU64::from_ptr(self.host.add(offset as usize & 0xFF8).cast()).load(Ordering::Relaxed)
            } else {
                let p = self.host.add(offset as usize & 0xFFC).cast();
                u64::from(AtomicU32::from_ptr(p).load(Ordering::Relaxed))
            }
        }
    }
    /// Sets bits in an aligned page-table entry if it still holds `old`; read-only pages are left alone.
    pub(crate) fn set_entry_bits(&self, offset: u64, wide: bool, old: u64, bits: u64) -> bool {
        if !self.writable {
            return true;
        }
        // SAFETY: the offset is masked into the page and aligned to the size; the page is writable.
        unsafe {
            if wide {
                let a = AtomicU64::from_ptr(self.host.add(offset as usize & 0xFF8).cast());
                a.compare_exchange(old, old | bits, Ordering::AcqRel, Ordering::Relaxed)
                    .is_ok()
            } else {
                let a = AtomicU32::from_ptr(self.host.add(offset as usize & 0xFFC).cast());
                let (o, n) = (old as u32, (old | bits) as u32);
                a.compare_exchange(o, n, Ordering::AcqRel, Ordering::Relaxed)
                    .is_ok()
            }
        }
    }
}

/// A value that memory and registers can hold.
pub(crate) trait Word: Copy + Eq + 'static {
    /// Bytes.
    const SIZE: u64;
    /// Zero-extended.
    fn to_u128(self) -> u128;
    /// Truncated.
    fn from_u128(v: u128) -> Self;
    /// # Safety
    /// `p` must be valid for a volatile read of `SIZE` bytes; any alignment.
    unsafe fn read(p: *const u8) -> Self;
    /// # Safety
    /// `p` must be valid for a volatile write of `SIZE` bytes; any alignment.
    unsafe fn write(p: *mut u8, v: Self);
    /// Compare and exchange; the host's atomic if `p` is aligned.
    ///
    /// # Safety
    /// `p` must be valid for reads and writes of `SIZE` bytes.
    unsafe fn exchange(p: *mut u8, old: Self, new: Self) -> bool;
}

/// Any alignment, one access.
#[repr(C, packed)]
struct Loose<T>(T);

macro_rules! word {
    ($t:ty, $a:ty) => {
        impl Word for $t {
            const SIZE: u64 = size_of::<$t>() as u64;
            #[inline(always)]
            fn to_u128(self) -> u128 {
                self as u128
            }
            #[inline(always)]
            fn from_u128(v: u128) -> Self {
                v as $t
            }
            #[inline(always)]
            unsafe fn read(p: *const u8) -> Self {
                // SAFETY: by this function's contract; the packed type has alignment 1.
                unsafe { p.cast::<Loose<$t>>().read_volatile().0 }
            }
            #[inline(always)]
            unsafe fn write(p: *mut u8, v: Self) {
                // SAFETY: by this function's contract; the packed type has alignment 1.
                unsafe { p.cast::<Loose<$t>>().write_volatile(Loose(v)) }
            }
            #[inline(always)]
            unsafe fn exchange(p: *mut u8, old: Self, new: Self) -> bool {
                if p.addr() % size_of::<$t>() != 0 {
                    // SAFETY: by this function's contract. Split locks are atomic only against
                    // processors that run on the same thread.
                    return unsafe {
                        Self::read(p) == old && {
                            Self::write(p, new);
                            true
                        }
                    };
                }
                // SAFETY: valid by this function's contract and aligned as just checked.
                let a = unsafe { <$a>::from_ptr(p.cast()) };
                a.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst)
                    .is_ok()
            }
        }
    };
}
word!(u8, AtomicU8);
word!(u16, AtomicU16);
word!(u32, AtomicU32);
word!(u64, AtomicU64);

impl Word for u128 {
    const SIZE: u64 = 16;
    #[inline(always)]
    fn to_u128(self) -> u128 {
        self
    }
    #[inline(always)]
    fn from_u128(v: u128) -> Self {
        v
    }
    #[inline(always)]
    unsafe fn read(p: *const u8) -> Self {
        // SAFETY: by this function's contract, in two halves.
        unsafe { u128::from(u64::read(p)) | u128::from(u64::read(p.add(8))) << 64 }
    }
    #[inline(always)]
    unsafe fn write(p: *mut u8, v: Self) {
        // SAFETY: by this function's contract, in two halves.
        unsafe {
            u64::write(p, v as u64);
            u64::write(p.add(8), (v >> 64) as u64);
        }
    }
    unsafe fn exchange(p: *mut u8, old: Self, new: Self) -> bool {
        if p.addr().is_multiple_of(16) && is_x86_feature_detected!("cmpxchg16b") {
            // SAFETY: valid by this function's contract, aligned and supported as just checked.
            return unsafe { exchange16(p.cast(), old, new) };
        }
        // SAFETY: by this function's contract.
        unsafe {
            Self::read(p) == old && {
                Self::write(p, new);
                true
            }
        }
    }
}

/// # Safety
/// `p` must be valid for reads and writes and aligned to 16; the host must have CMPXCHG16B.
unsafe fn exchange16(p: *mut u128, old: u128, new: u128) -> bool {
    let (low, high): (u64, u64);
    // SAFETY: by this function's contract. RBX cannot be named as an operand, but any free choice of a
    // register may fall on it, so every register here is named; it is restored.
    unsafe {
        std::arch::asm!(
            "xchg rbx, rsi",
            "lock cmpxchg16b [rdi]",
            "mov rbx, rsi",
            inout("rsi") new as u64 => _,
            in("rdi") p,
            in("rcx") (new >> 64) as u64,
            inout("rax") old as u64 => low,
            inout("rdx") (old >> 64) as u64 => high,
            options(nostack),
        );
    }
    u128::from(low) | u128::from(high) << 64 == old
}

/// Kind of access for a translation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Access {
    Read,
    Write,
    Exec,
}

impl Tlb {
    pub(crate) fn new() -> Self {
        let bank = |_| Bank::new();
        Self {
            read: [0; REGIMES].map(bank),
            write: [0; REGIMES].map(bank),
        }
    }
    /// Forgets everything.
    pub(crate) fn flush(&mut self) {
        for b in self.read.iter_mut().chain(&mut self.write) {
            if b.used {
                b.hot.fill(NO_ENTRY);
                b.used = false;
            }
        }
    }
    /// Forgets the page of `la`.
    pub(crate) fn flush_page(&mut self, la: u64) {
        for b in self.read.iter_mut().chain(&mut self.write) {
            b.hot[slot(la)] = NO_ENTRY;
        }
    }
    /// Sends stores to the page `gpn` through the slow path from now on (every page if `None`).
    pub(crate) fn watch(&mut self, gpn: Option<u64>) {
        for b in self.write.iter_mut().filter(|b| b.used) {
            for (hot, cold) in b.hot.iter_mut().zip(&b.cold) {
                if hot.tag & 0xFFF == 0 && gpn.is_none_or(|g| cold.gpa >> 12 == g) {
                    hot.tag |= TAG_CODE;
                }
            }
        }
    }
}

#[inline(always)]
fn slot(la: u64) -> usize {
    (la >> 12) as usize & (TLB_SIZE - 1)
}

/// The page that the last byte of an access is on; equal to an entry's tag only if the whole access is
/// on that page, because the next page has another slot.
#[inline(always)]
fn last_page<T: Word>(la: u64) -> u64 {
    la.wrapping_add(T::SIZE - 1) & PAGE_MASK
}

impl Core {
    /// Loads from a linear address. `idx` is the number of instructions of the block retired before.
    #[inline(always)]
    pub(crate) fn load<T: Word>(&mut self, bus: &mut dyn Bus, la: u64, idx: u8) -> Result<T, Stop> {
        let e = &self.tlb.read[self.regime & (REGIMES - 1)].hot[slot(la)];
        if e.tag == last_page::<T>(la) {
            // SAFETY: the tag matches, so la + addend is inside the page's 4096 bytes (see `fill`).
            return Ok(unsafe { T::read(la.wrapping_add(e.addend) as *const u8) });
        }
        self.cur_idx = idx;
        self.load_slow(bus, la)
    }

    /// Stores to a linear address.
    #[inline(always)]
    pub(crate) fn store<T: Word>(&mut self, bus: &mut dyn Bus, la: u64, v: T, idx: u8) -> Flow {
        let e = &self.tlb.write[self.regime & (REGIMES - 1)].hot[slot(la)];
        if e.tag == last_page::<T>(la) {
            // SAFETY: the tag matches, so la + addend is inside the page's 4096 bytes (see `fill`).
            unsafe { T::write(la.wrapping_add(e.addend) as *mut u8, v) };
            return Ok(());
        }
        self.cur_idx = idx;
        self.store_slow(bus, la, v)
    }

    /// Loads what will be stored again at once: checks that the store will succeed.
    #[inline(always)]
    pub(crate) fn load_rmw<T: Word>(&mut self, bus: &mut dyn Bus, la: u64, idx: u8) -> Result<T, Stop> {
        let e = &self.tlb.write[self.regime & (REGIMES - 1)].hot[slot(la)];
        if e.tag == last_page::<T>(la) {
            // SAFETY: the tag matches, so la + addend is inside the page's 4096 bytes (see `fill`).
            return Ok(unsafe { T::read(la.wrapping_add(e.addend) as *const u8) });
        }
        self.cur_idx = idx;
        self.check_alignment(la, T::SIZE)?;
        self.probe_write(bus, la, T::SIZE)?;
        self.load_slow(bus, la)
    }

    /// Compare and exchange, atomic against other processors and devices where the host can.
    pub(crate) fn exchange<T: Word>(
        &mut self,
        bus: &mut dyn Bus,
        la: u64,
        old: T,
        new: T,
    ) -> Result<bool, Stop> {
        let e = &self.tlb.write[self.regime & (REGIMES - 1)].hot[slot(la)];
        if e.tag == last_page::<T>(la) {
            // SAFETY: the tag matches, so la + addend is inside the page's 4096 bytes (see `fill`).
            return Ok(unsafe { T::exchange(la.wrapping_add(e.addend) as *mut u8, old, new) });
        }
        self.probe_write(bus, la, T::SIZE)?;
        // Code pages, MMIO and split accesses: atomic against processors on this thread only. Devices are
        // read once, by the caller.
        let last = la.wrapping_add(T::SIZE - 1) & self.lin_mask;
        let device = self.is_device(bus, la & self.lin_mask)? || self.is_device(bus, last)?;
        if !device && self.load_slow::<T>(bus, la)? != old {
            return Ok(false);
        }
        self.store_slow(bus, la, new)?;
        Ok(true)
    }

    /// Whether stores to `la` go to the bus.
    fn is_device(&mut self, bus: &mut dyn Bus, la: u64) -> Result<bool, Stop> {
        Ok(self
            .target(bus, la, Access::Write)?
            .page
            .is_none_or(|p| !p.writable))
    }

    /// #AC where CR0.AM and RFLAGS.AC ask for it in user mode (APM2 section 8.2.18). It comes before page
    /// faults, as on the host's processor, but behind the #GP or #SS of an address that is not canonical.
    pub(crate) fn check_alignment(&mut self, la: u64, len: u64) -> Flow {
        let la = la & self.lin_mask;
        if self.regime != ALIGNED || la & (len - 1) == 0 || (self.is_long() && !is_canonical(la)) {
            return Ok(());
        }
        self.fault(vector::AC, 0)
    }

    #[cold]
    #[inline(never)]
    fn load_slow<T: Word>(&mut self, bus: &mut dyn Bus, la: u64) -> Result<T, Stop> {
        self.check_alignment(la, T::SIZE)?;
        let la = la & self.lin_mask;
        let first = (4096 - (la & 0xFFF)).min(T::SIZE);
        let mut v = self.read_piece(bus, la, first)?;
        if first < T::SIZE {
            let second = self.read_piece(bus, la.wrapping_add(first) & self.lin_mask, T::SIZE - first)?;
            v |= second << (first * 8);
        }
        Ok(T::from_u128(v))
    }

    #[cold]
    #[inline(never)]
    fn store_slow<T: Word>(&mut self, bus: &mut dyn Bus, la: u64, v: T) -> Flow {
        self.check_alignment(la, T::SIZE)?;
        let la = la & self.lin_mask;
        let first = (4096 - (la & 0xFFF)).min(T::SIZE);
        if first < T::SIZE {
            self.probe_write(bus, la, T::SIZE)?;
        }
        self.write_piece(bus, la, first, v.to_u128())?;
        if first < T::SIZE {
            let rest = v.to_u128() >> (first * 8);
            self.write_piece(bus, la.wrapping_add(first) & self.lin_mask, T::SIZE - first, rest)?;
        }
        Ok(())
    }

    /// Faults if a store of `len` bytes (at most 4096) at `la` would.
    pub(crate) fn probe_write(&mut self, bus: &mut dyn Bus, la: u64, len: u64) -> Flow {
        let la = la & self.lin_mask;
        let first = (4096 - (la & 0xFFF)).min(len);
        let t = self.target(bus, la, Access::Write)?;
        self.check_running_code(&t, la, first)?;
        if first < len {
            let next = la.wrapping_add(first) & self.lin_mask;
            let t = self.target(bus, next, Access::Write)?;
            self.check_running_code(&t, next, len - first)?;
        }
        Ok(())
    }

    /// A store over the running block must happen in a block of its own.
    fn check_running_code(&mut self, t: &Target, la: u64, len: u64) -> Flow {
        let gpn = t.gpa >> 12;
        let running = (gpn == self.cur_gpn || gpn == self.cur_gpn2) && !self.single;
        if running && self.code.bits(gpn) & chunk_mask(la & 0xFFF, len) != 0 {
            self.why = Why::Single;
            return Err(Stop);
        }
        Ok(())
    }

    /// Where the page of `la` is, filling the TLB.
    fn target(&mut self, bus: &mut dyn Bus, la: u64, access: Access) -> Result<Target, Stop> {
        let s = slot(la);
        let bank = match access {
            Access::Write => &self.tlb.write[self.regime & (REGIMES - 1)],
            _ => &self.tlb.read[self.regime & (REGIMES - 1)],
        };
        let tag = bank.hot[s].tag;
        if tag & PAGE_MASK == la & PAGE_MASK && tag & TAG_NONE == 0 {
            return Ok(bank.cold[s]);
        }
        let gpa = self.walk(bus, la, access)? & PAGE_MASK;
        let page = self.phys_page(bus, gpa >> 12);
        let target = Target { gpa, page };
        self.fill(la, access, target);
        Ok(target)
    }

    fn fill(&mut self, la: u64, access: Access, target: Target) {
        let write = access == Access::Write;
        let flag = match target.page {
            Some(p) if !write || p.writable => {
                if write && self.code.bits(target.gpa >> 12) != 0 {
                    TAG_CODE
                } else {
                    0
                }
            }
            _ => TAG_MMIO,
        };
        let watched = if self.watch.on_page(la) { TAG_WATCHED } else { 0 };
        let aligned = if self.regime == ALIGNED { TAG_ALIGNED } else { 0 };
        let addend = target
            .page
            .map_or(0, |p| (p.host as u64).wrapping_sub(la & PAGE_MASK));
        let regime = self.regime & (REGIMES - 1);
        let bank = if write {
            &mut self.tlb.write[regime]
        } else {
            &mut self.tlb.read[regime]
        };
        bank.hot[slot(la)] = Entry {
            tag: la & PAGE_MASK | flag | watched | aligned,
            addend,
        };
        bank.cold[slot(la)] = target;
        bank.used = true;
    }

    /// Reads up to 16 bytes within one page.
    fn read_piece(&mut self, bus: &mut dyn Bus, la: u64, len: u64) -> Result<u128, Stop> {
        let t = self.target(bus, la, Access::Read)?;
        self.watch_data(la, len, false);
        let mut b = [0u8; 16];
        let out = &mut b[..len as usize];
        match t.page {
            Some(p) => match len {
                // SAFETY: la and its last byte are on this page, which is readable.
                2 => return Ok(unsafe { u128::from(u16::read(p.host.add(la as usize & 0xFFF))) }),
                // SAFETY: as above.
                4 => return Ok(unsafe { u128::from(u32::read(p.host.add(la as usize & 0xFFF))) }),
                // SAFETY: as above.
                8 => return Ok(unsafe { u128::from(u64::read(p.host.add(la as usize & 0xFFF))) }),
                _ => p.copy_out(la as usize & 0xFFF, out),
            },
            None => self.mmio(bus, t.gpa | la & 0xFFF, out, false),
        }
        Ok(u128::from_le_bytes(b))
    }

    /// Writes up to 16 bytes within one page.
    fn write_piece(&mut self, bus: &mut dyn Bus, la: u64, len: u64, v: u128) -> Flow {
        let t = self.target(bus, la, Access::Write)?;
        let mut b = v.to_le_bytes();
        let Some(p) = t.page.filter(|p| p.writable) else {
            self.watch_data(la, len, true);
            self.mmio(bus, t.gpa | la & 0xFFF, &mut b[..len as usize], true);
            return Ok(());
        };
        self.check_running_code(&t, la, len)?;
        self.watch_data(la, len, true);
        // SAFETY: la and its last byte are on this page, which is writable.
        unsafe {
            let host = p.host.add(la as usize & 0xFFF);
            match len {
                2 => u16::write(host, v as u16),
                4 => u32::write(host, v as u32),
                8 => u64::write(host, v as u64),
                _ => (0..len as usize).for_each(|i| host.add(i).write_volatile(b[i])),
            }
        }
        self.note_code_write(&t, p, la, len);
        Ok(())
    }

    /// After a store to a page that may have translated code.
    fn note_code_write(&mut self, t: &Target, p: RamPage, la: u64, len: u64) {
        let gpn = t.gpa >> 12;
        let bits = self.code.bits(gpn);
        if bits & chunk_mask(la & 0xFFF, len) != 0 {
            self.code.clear(gpn);
            p.generation().fetch_add(1, Ordering::AcqRel);
        } else if bits != 0 {
            return;
        }
        self.fill(la, Access::Write, *t);
    }

    /// MMIO in naturally sized pieces.
    fn mmio(&mut self, bus: &mut dyn Bus, gpa: u64, data: &mut [u8], write: bool) {
        bus.at_instruction(self.now());
        let mut done = 0;
        while done < data.len() {
            let left = data.len() - done;
            let at = gpa + done as u64;
            let n = [8, 4, 2]
                .into_iter()
                .find(|&n| n <= left && (n == left || at.is_multiple_of(n as u64)))
                .unwrap_or(1);
            let piece = &mut data[done..done + n];
            if write {
                bus.mmio_write(at, piece);
            } else {
                bus.mmio_read(at, piece);
            }
            let rip = self.gpr[crate::core::RIP];
            if let Some(t) = &mut self.tracer {
                t.mmio(at, piece, write, rip);
            }
            done += n;
        }
    }

    /// How many of `len` bytes from `la` (going up) can be accessed directly, and where: bulk string
    /// operations. `None` when the slow path must do it.
    fn direct(&mut self, bus: &mut dyn Bus, la: u64, access: Access) -> Result<Option<*mut u8>, Stop> {
        let t = self.target(bus, la, access)?;
        let Some(p) = t.page else { return Ok(None) };
        if self.watch.on_page(la) || self.regime == ALIGNED {
            return Ok(None);
        }
        if access == Access::Write && (!p.writable || self.code.bits(t.gpa >> 12) != 0) {
            return Ok(None);
        }
        // SAFETY: the offset is inside the page.
        Ok(Some(unsafe { p.host.add(la as usize & 0xFFF) }))
    }

    /// Copies up to `len` bytes upwards between linear addresses without crossing a page on either side,
    /// as if byte by byte in units of `unit` bytes. Returns the bytes done; 0 = use the slow path.
    pub(crate) fn bulk_copy(
        &mut self,
        bus: &mut dyn Bus,
        to: u64,
        from: u64,
        len: u64,
        unit: u64,
    ) -> Result<u64, Stop> {
        let n = len.min(4096 - (to & 0xFFF)).min(4096 - (from & 0xFFF)) / unit * unit;
        if n == 0 {
            return Ok(0);
        }
        let Some(src) = self.direct(bus, from, Access::Read)? else {
            return Ok(0);
        };
        let Some(dst) = self.direct(bus, to, Access::Write)? else {
            return Ok(0);
        };
        let (s, d) = (src.addr() as u64, dst.addr() as u64);
        if d > s && d < s + n {
            return Ok(0);
        }
        // SAFETY: both ranges are inside their pages; `copy` allows overlap, and a forward copy to a
        // lower or disjoint address equals the unit-wise result. Races with devices are the guest's.
        unsafe { std::ptr::copy(src, dst, n as usize) };
        Ok(n)
    }

    /// Fills up to `len` bytes from `to` with the low `unit` bytes of `v`. Returns the bytes done.
    pub(crate) fn bulk_fill(
        &mut self,
        bus: &mut dyn Bus,
        to: u64,
        v: u64,
        len: u64,
        unit: u64,
    ) -> Result<u64, Stop> {
        let n = len.min(4096 - (to & 0xFFF)) / unit * unit;
        if n == 0 {
            return Ok(0);
        }
        let Some(dst) = self.direct(bus, to, Access::Write)? else {
            return Ok(0);
        };
        // SAFETY: the range is inside the page, which is writable.
        unsafe {
            match unit {
                1 => std::ptr::write_bytes(dst, v as u8, n as usize),
                2 => (0..n / 2).for_each(|i| u16::write(dst.add(i as usize * 2), v as u16)),
                4 => (0..n / 4).for_each(|i| u32::write(dst.add(i as usize * 4), v as u32)),
                _ => (0..n / 8).for_each(|i| u64::write(dst.add(i as usize * 8), v)),
            }
        }
        Ok(n)
    }
}
