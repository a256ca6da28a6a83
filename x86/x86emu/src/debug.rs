// SPDX-License-Identifier: MIT
//! Breakpoints of the guest's debug registers (SDM volume 3 chapter 18): DR0 to DR3 as DR7 enables them.
//!
//! Always true: while none is enabled nothing is checked; while one is, every instruction runs in a block
//! of its own, and data pages with a watched address stay out of the TLB's fast path. Not here: the
//! embedder's breakpoints (`cpu`), single steps by RFLAGS.TF (`cpu`).

use crate::core::{CS, Core, Flow, RIP};
use x86defs::{cr4, rflags, vector};

/// Indices in [`Core::dr`].
const DR6: usize = 4;
const DR7: usize = 5;
/// DR7: any access to a debug register raises #DB.
const GENERAL_DETECT: u64 = 1 << 13;
/// DR6: a debug register was about to be accessed.
const ACCESS_DETECTED: u64 = 1 << 13;

/// What a breakpoint waits for; DR7's encoding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Execute,
    Write,
    Port,
    Access,
}

/// An enabled breakpoint.
#[derive(Clone, Copy, Debug)]
struct Point {
    kind: Kind,
    first: u64,
    last: u64,
}

/// All breakpoints, and what the current instruction has hit.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Watch {
    points: [Option<Point>; 4],
    /// Whether any is enabled.
    pub active: bool,
    /// Bits for DR6.
    pub hits: u64,
}

impl Watch {
    /// From debug registers; `ports` says that CR4.DE makes I/O breakpoints valid.
    fn new(dr: &[u64; 6], ports: bool) -> Self {
        let mut watch = Self::default();
        for (n, &address) in dr[..4].iter().enumerate() {
            if dr[DR7] >> (n * 2) & 3 == 0 {
                continue;
            }
            let field = dr[DR7] >> (16 + n * 4);
            let kind = match field & 3 {
                0 => Kind::Execute,
                1 => Kind::Write,
                2 if ports => Kind::Port,
                2 => continue,
                _ => Kind::Access,
            };
            let len = match kind {
                Kind::Execute => 1,
                _ => [1, 2, 8, 4][(field >> 2 & 3) as usize],
            };
            let first = address & !(len - 1);
            watch.points[n] = Some(Point {
                kind,
                first,
                last: first | (len - 1),
            });
            watch.active = true;
        }
        watch
    }

    /// DR6 bits of the breakpoints that `wanted` chooses and that `first..=last` touches.
    fn touched(&self, first: u64, last: u64, wanted: impl Fn(Kind) -> bool) -> u64 {
        let hit = |p: &Option<Point>| p.is_some_and(|p| wanted(p.kind) && p.first <= last && first <= p.last);
        self.points
            .iter()
            .enumerate()
            .map(|(n, p)| u64::from(hit(p)) << n)
            .sum()
    }

    /// Whether a data access to the page of `la` may hit something.
    pub(crate) fn on_page(&self, la: u64) -> bool {
        let page = la & !0xFFF;
        self.active && self.touched(page, page | 0xFFF, |k| matches!(k, Kind::Write | Kind::Access)) != 0
    }
}

impl Core {
    /// After a change of debug registers or of CR4.DE.
    pub(crate) fn update_watch(&mut self) {
        let before = self.watch;
        self.watch = Watch::new(&self.dr, self.cr4 & cr4::DE != 0);
        self.watch.hits = before.hits;
        if before.active || self.watch.active {
            self.tlb.flush();
            self.recheck = true;
        }
    }

    /// A data access within one page.
    #[inline(always)]
    pub(crate) fn watch_data(&mut self, la: u64, len: u64, write: bool) {
        if self.watch.active {
            let wanted = |k| k == Kind::Access || write && k == Kind::Write;
            self.watch.hits |= self.watch.touched(la, la + (len - 1), wanted);
        }
    }

    /// A port access.
    pub(crate) fn watch_port(&mut self, port: u16, size: u8) {
        if self.watch.active {
            let (first, last) = (u64::from(port), u64::from(port) + u64::from(size) - 1);
            self.watch.hits |= self.watch.touched(first, last, |k| k == Kind::Port);
        }
    }

    /// DR6 bits of breakpoints at the instruction that is next. RFLAGS.RF holds them back once.
    pub(crate) fn watch_code(&mut self) -> u64 {
        if self.sys & rflags::RF != 0 {
            self.sys &= !rflags::RF;
            return 0;
        }
        let la = self.seg_base[CS].wrapping_add(self.gpr[RIP]) & self.lin_mask;
        self.watch.touched(la, la, |k| k == Kind::Execute)
    }

    /// Reports causes of a #DB in DR6.
    pub(crate) fn report_debug(&mut self, causes: u64) {
        self.dr[DR6] |= causes;
    }

    /// The handler of #DB may access debug registers.
    pub(crate) fn allow_debug_registers(&mut self) {
        self.dr[DR7] &= !GENERAL_DETECT;
    }

    /// #DB before an access to a debug register if DR7.GD asks for it.
    pub(crate) fn check_general_detect(&mut self) -> Flow {
        if self.dr[DR7] & GENERAL_DETECT == 0 {
            return Ok(());
        }
        self.report_debug(ACCESS_DETECTED);
        self.trap(vector::DB)
    }
}
