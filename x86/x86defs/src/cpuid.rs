// SPDX-License-Identifier: MIT
//! CPUID leaves as data: what a partition shows its guest.

/// One CPUID result, keyed by leaf and, where the leaf has them, sub-leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CpuidEntry {
    /// Leaf (EAX on entry).
    pub leaf: u32,
    /// Sub-leaf (ECX on entry); `None` when the leaf ignores it.
    pub subleaf: Option<u32>,
    /// EAX result.
    pub eax: u32,
    /// EBX result.
    pub ebx: u32,
    /// ECX result.
    pub ecx: u32,
    /// EDX result.
    pub edx: u32,
}

/// Finds the entry for `leaf` and `subleaf`; an entry without sub-leaves matches any.
pub fn find(entries: &[CpuidEntry], leaf: u32, subleaf: u32) -> Option<&CpuidEntry> {
    entries
        .iter()
        .find(|e| e.leaf == leaf && e.subleaf.is_none_or(|s| s == subleaf))
}
