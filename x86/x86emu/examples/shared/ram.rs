// SPDX-License-Identifier: MIT
//! Memory for the examples and benches: one zeroed allocation with page generations.

use std::sync::atomic::AtomicU32;
use x86emu::RamPage;

/// Zeroed, page-aligned memory.
pub(crate) struct Ram {
    memory: *mut u8,
    layout: std::alloc::Layout,
    generations: Vec<AtomicU32>,
}

impl Ram {
    /// `len` bytes, a multiple of 4096.
    pub(crate) fn new(len: usize) -> Self {
        let layout = std::alloc::Layout::from_size_align(len, 4096).expect("size");
        // SAFETY: the size is not zero.
        let memory = unsafe { std::alloc::alloc_zeroed(layout) };
        assert!(!memory.is_null());
        Self {
            memory,
            layout,
            generations: (0..len / 4096).map(|_| AtomicU32::new(0)).collect(),
        }
    }
    /// The page with index `n`.
    pub(crate) fn page(&self, n: u64, writable: bool) -> Option<RamPage> {
        let g = self.generations.get(usize::try_from(n).ok()?)?;
        // SAFETY: the page is inside the allocation, which outlives the processor in every user.
        Some(unsafe { RamPage::new(self.memory.add(n as usize * 4096), g, writable) })
    }
    /// Copies bytes in, as a loader does before the processor runs.
    #[allow(dead_code)]
    pub(crate) fn write(&mut self, at: usize, bytes: &[u8]) {
        assert!(at + bytes.len() <= self.layout.size());
        // SAFETY: bounds are checked above; nobody else accesses the memory now.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.memory.add(at), bytes.len()) };
    }
    /// Gives a page a new generation, as a device's write does.
    #[allow(dead_code)]
    pub(crate) fn touch(&self, n: u64) {
        self.generations[n as usize].fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    }
    /// Copies bytes out, while no processor runs.
    #[allow(dead_code)]
    pub(crate) fn read(&self, at: usize, len: usize) -> Vec<u8> {
        self.bytes(at, len).to_vec()
    }
    /// Bytes as they are while no processor runs.
    #[allow(dead_code)]
    pub(crate) fn bytes(&self, at: usize, len: usize) -> &[u8] {
        assert!(at + len <= self.layout.size());
        // SAFETY: bounds are checked above; processors write only while they borrow
        // the bus with this memory exclusively.
        unsafe { std::slice::from_raw_parts(self.memory.add(at), len) }
    }
}

impl Drop for Ram {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout.
        unsafe { std::alloc::dealloc(self.memory, self.layout) };
    }
}

/// CPU time of this process in seconds.
#[allow(dead_code)]
pub(crate) fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |i: usize| fields.get(i).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}
