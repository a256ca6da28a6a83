// SPDX-License-Identifier: MIT
//! The processor as its embedder sees it, and the run loop.
//!
//! Always true: `run` retires at most its budget and counts exactly; events are looked at between
//! blocks; two runs with the same inputs at the same instruction counts are the same.
//! Not here: anything that depends on an instruction.

use crate::bus::{Attention, Bus, Exit, Traced, Tracer};
use crate::cache::{Block, Cache, Link};
use crate::code_map::CodeMap;
use crate::core::{CS, Core, Fault, Fpu, RIP, Stop, Why, key};
use crate::exception::Source;
use crate::mem::{Access, Generation};
use crate::ops::control::INT1;
use crate::translate::{Request, mark_code, translate};
use crate::uop::Uop;
use crate::walk::is_canonical;
use std::collections::HashSet;
use x86defs::cpuid::CpuidEntry;
use x86defs::{X86State, rflags, vector};

/// What a processor is made from.
#[derive(Debug, Clone)]
pub struct Config {
    /// CPUID leaves. The engine mirrors CR4.OSXSAVE into leaf 1; everything else is as given. What it
    /// implements is in [`crate::cpuid::baseline`].
    pub cpuid: Vec<CpuidEntry>,
    /// Physical address width in bits, 32 to 52; must agree with leaf 0x80000008.
    pub phys_bits: u8,
    /// Where translated code is, shared by the processors of a partition.
    pub code: CodeMap,
}

/// One x86-64 processor.
pub struct Cpu {
    core: Box<Core>,
    cache: Cache,
    attention: Attention,
    breakpoints: HashSet<u64>,
    /// RIP of the breakpoint that the last run stopped at.
    stopped_at: Option<u64>,
    code_epoch: u64,
    trace_instructions: bool,
}

impl std::fmt::Debug for Cpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Cpu {{ cs {:#x}, rip {:#x}, retired {} }}",
            self.core.seg[CS].selector,
            self.rip(),
            self.retired()
        )
    }
}

/// What a slice of a long string instruction takes from the budget.
const YIELD_COST: u64 = 4096;

/// How one block ended.
enum Ended {
    /// At its end: RIP is set.
    Done,
    /// Stopped at this uop.
    At(Uop),
}

impl Cpu {
    /// A processor in reset state.
    pub fn new(config: Config) -> Self {
        Self {
            core: Box::new(Core::new(config.cpuid, config.phys_bits, config.code)),
            cache: Cache::new(),
            attention: Attention::default(),
            breakpoints: HashSet::new(),
            stopped_at: None,
            code_epoch: 0,
            trace_instructions: false,
        }
    }

    /// The flags by which others interrupt this processor.
    pub fn attention(&self) -> Attention {
        self.attention.clone()
    }
    /// Instructions retired since creation. A REP string instruction counts once.
    pub fn retired(&self) -> u64 {
        self.core.icount
    }
    /// Instruction pointer.
    pub fn rip(&self) -> u64 {
        self.core.gpr[RIP]
    }
    /// Whether it waits in HLT.
    pub fn is_halted(&self) -> bool {
        self.core.halted
    }
    /// Architectural registers. CR8 is the bus's and reads 0 here.
    pub fn state(&self) -> X86State {
        self.core.state()
    }
    /// Replaces the architectural registers (except CR8) and wakes the processor.
    pub fn set_state(&mut self, state: &X86State) {
        self.core.set_state(state);
        self.stopped_at = None;
    }
    /// Pending events, FPU and registers as after RESET; translations are dropped.
    pub fn reset(&mut self) {
        self.core.set_state(&X86State::reset());
        self.core.fpu = Fpu::reset();
        self.core.mxcsr = 0x1F80;
        self.core.xmm = [0; 16];
        self.core.nmi_pending = false;
        self.core.nmi_masked = false;
        self.stopped_at = None;
        self.flush_memory_map();
    }
    /// x87, MXCSR and XMM as a 64-bit FXSAVE image.
    pub fn fxsave(&self) -> [u8; 512] {
        self.core.fxsave_image()
    }
    /// Loads a 64-bit FXSAVE image; reserved MXCSR bits are dropped.
    pub fn fxrstor(&mut self, image: &[u8; 512]) {
        self.core.load_fx_image(image);
    }
    /// Reads an MSR that the engine owns (`None`: it is the bus's).
    pub fn msr(&self, msr: u32) -> Option<u64> {
        self.core.own_msr(msr)
    }
    /// Whether an NMI is blocked until IRET.
    pub fn nmi_masked(&self) -> bool {
        self.core.nmi_masked
    }
    /// Drops everything that depends on [`Bus::ram`]: after the memory map changed or memory was
    /// replaced without new generations.
    pub fn flush_memory_map(&mut self) {
        self.cache.clear();
        self.core.pages.entries.fill((u64::MAX, None));
        self.core.flush_tlb();
    }
    /// Sets the tracer, or removes it.
    pub fn set_tracer(&mut self, tracer: Option<Box<dyn Tracer>>) {
        self.trace_instructions = tracer.as_ref().is_some_and(|t| t.wants_instructions());
        self.core.tracer = tracer;
        self.core.recheck = true;
    }
    /// Makes `run` stop before the instruction at a linear address.
    pub fn add_breakpoint(&mut self, la: u64) {
        self.breakpoints.insert(la);
        self.flush_memory_map();
    }
    /// Removes a breakpoint; false if there was none.
    pub fn remove_breakpoint(&mut self, la: u64) -> bool {
        self.flush_memory_map();
        self.breakpoints.remove(&la)
    }
    /// Translates a linear address as a supervisor read would, without a fault (debuggers).
    pub fn translate(&mut self, bus: &mut dyn Bus, la: u64) -> Option<u64> {
        let why = self.core.why;
        let gpa = self.core.supervisor(|c| c.walk(bus, la, Access::Read)).ok();
        self.core.why = why;
        gpa
    }

    /// Runs until `budget` instructions are retired or something else ends it. Exceptions, interrupts and
    /// slices of long string instructions use up budget too, so `Exit::Budget` may come with fewer retired.
    pub fn run(&mut self, bus: &mut dyn Bus, budget: u64) -> Exit {
        self.core.limit = self.core.icount.saturating_add(budget);
        self.see_other_processors();
        let skip = self.stopped_at.take() == Some(self.rip());
        if skip
            && self.core.icount < self.core.limit
            && let Some(exit) = self.one(bus)
        {
            return exit;
        }
        let mut from = None;
        loop {
            if self.core.icount >= self.core.limit || self.core.recheck || self.attention.any() {
                if let Some(exit) = self.boundary(bus) {
                    return exit;
                }
                from = None;
                if self.core.recheck {
                    continue;
                }
            }
            let Ok(n) = self.next_block(bus, from) else {
                from = None;
                match self.stopped(bus, None) {
                    Some(exit) => return exit,
                    None => continue,
                }
            };
            let left = self.core.limit.saturating_sub(self.core.icount);
            if u64::from(self.cache.blocks[n as usize].count) > left {
                from = None;
                if left > 0
                    && let Some(exit) = self.one(bus)
                {
                    return exit;
                }
                continue;
            }
            match self.execute(bus, n) {
                Ended::Done => from = Some(n),
                Ended::At(u) => {
                    from = None;
                    if let Some(exit) = self.stopped(bus, Some(&u)) {
                        return exit;
                    }
                }
            }
        }
    }

    /// Runs one instruction, with no regard to pending interrupts, breakpoints and HLT state.
    /// `Exit::Budget` means that it retired or that its exception was delivered.
    pub fn step(&mut self, bus: &mut dyn Bus) -> Exit {
        self.core.limit = self.core.icount + 1;
        self.core.halted = false;
        self.stopped_at = None;
        self.see_other_processors();
        self.one(bus).unwrap_or(Exit::Budget)
    }

    /// Other processors may have translated code since the last run: check stores to those pages.
    fn see_other_processors(&mut self) {
        let epoch = self.core.code.epoch();
        if epoch != self.code_epoch {
            self.code_epoch = epoch;
            self.core.tlb.watch(None);
        }
    }

    #[inline(always)]
    fn execute(&mut self, bus: &mut dyn Bus, n: u32) -> Ended {
        let b = &self.cache.blocks[n as usize];
        let c = &mut *self.core;
        c.cur_gpn = b.gpn;
        c.cur_gpn2 = b.second.as_ref().map_or(u64::MAX, |s| s.1);
        for u in &self.cache.uops[b.first as usize..b.end as usize] {
            if (u.run)(c, u, bus).is_err() {
                return Ended::At(*u);
            }
        }
        c.icount += u64::from(b.count);
        if b.falls_through {
            c.gpr[RIP] = c.gpr[RIP].wrapping_add(b.len.into()) & c.lin_mask;
        }
        Ended::Done
    }

    /// The block at RIP, coming from block `from`.
    #[inline(always)]
    fn next_block(&mut self, bus: &mut dyn Bus, from: Option<u32>) -> Result<u32, Stop> {
        let rip = self.core.gpr[RIP];
        let context = self.core.context;
        if let Some(f) = from {
            for l in self.cache.blocks[f as usize].links {
                if l.rip == rip && l.context == context && !self.cache.blocks[l.block as usize].stale() {
                    return Ok(l.block);
                }
            }
        }
        if let Some(n) = self.cache.jump(rip, context)
            && !self.cache.blocks[n as usize].stale()
        {
            self.link(
                from,
                Link {
                    rip,
                    context,
                    block: n,
                },
            );
            return Ok(n);
        }
        self.find_block(bus, from)
    }

    /// Remembers where a block went.
    fn link(&mut self, from: Option<u32>, to: Link) {
        let Some(f) = from else { return };
        let links = &mut self.cache.blocks[f as usize].links;
        // The second link is replaced first, except when the first is no longer valid.
        let slot = usize::from(links[0].context == to.context && links[0].rip != to.rip);
        links[slot] = to;
    }

    #[cold]
    #[inline(never)]
    fn find_block(&mut self, bus: &mut dyn Bus, from: Option<u32>) -> Result<u32, Stop> {
        let n = self.block_for(bus, self.core.key)?;
        let (rip, context) = (self.core.gpr[RIP], self.core.context);
        self.cache.set_jump(rip, context, n);
        if from.is_some_and(|f| (f as usize) < self.cache.blocks.len()) {
            self.link(
                from,
                Link {
                    rip,
                    context,
                    block: n,
                },
            );
        }
        Ok(n)
    }

    /// Finds or translates the block at RIP for a key.
    fn block_for(&mut self, bus: &mut dyn Bus, key: u32) -> Result<u32, Stop> {
        if self.cache.is_full() {
            self.cache.clear();
        }
        let la = self.core.fetch_linear()?;
        let gpa = self.core.fetch_address(bus, la)?;
        if let Some(n) = self.cache.find(gpa, key)
            && self.still_valid(bus, n, la)?
        {
            return Ok(n);
        }
        let rq = Request {
            la,
            gpa,
            key,
            breakpoints: &self.breakpoints,
        };
        translate(&mut self.core, bus, &mut self.cache, &rq)
    }

    /// Whether a block's bytes are what memory holds; then it is fresh again.
    fn still_valid(&mut self, bus: &mut dyn Bus, n: u32, la: u64) -> Result<bool, Stop> {
        let b = &self.cache.blocks[n as usize];
        let offset = (b.gpa & 0xFFF) as usize;
        let first = usize::from(b.len).min(4096 - offset);
        if let Some((_, gpn)) = b.second {
            let next = la.wrapping_add(first as u64) & self.core.lin_mask;
            if self.core.fetch_address(bus, next)? >> 12 != gpn {
                return Ok(false);
            }
        }
        if !b.stale() {
            return Ok(true);
        }
        let Some(page) = self.core.phys_page(bus, b.gpn) else {
            return Ok(false);
        };
        let generation = Generation::of(Some(&page));
        let bytes = &self.cache.bytes[b.bytes as usize..b.bytes as usize + usize::from(b.len)];
        let mut same = page.equals(offset, &bytes[..first]);
        let mut second = None;
        if let Some((_, gpn)) = b.second {
            let Some(page) = self.core.phys_page(bus, gpn) else {
                return Ok(false);
            };
            second = Some((Generation::of(Some(&page)), gpn));
            same &= page.equals(0, &bytes[first..]);
        }
        if same {
            let b: &mut Block = &mut self.cache.blocks[n as usize];
            b.generation = generation;
            b.second = second;
            mark_code(&mut self.core, &self.cache.blocks[n as usize]);
        }
        Ok(same)
    }

    /// Runs one instruction in a block of its own.
    #[cold]
    #[inline(never)]
    fn one(&mut self, bus: &mut dyn Bus) -> Option<Exit> {
        if self.trace_instructions {
            self.trace(bus);
        }
        self.core.single = true;
        self.core.cur_idx = 0;
        let exit = match self.block_for(bus, self.core.key | key::SINGLE) {
            Err(Stop) => self.stopped(bus, None),
            Ok(n) => match self.execute(bus, n) {
                Ended::Done => None,
                Ended::At(u) => self.stopped(bus, Some(&u)),
            },
        };
        self.core.single = false;
        exit
    }

    /// After a handler (or, without `at`, an instruction fetch) stopped.
    #[cold]
    #[inline(never)]
    fn stopped(&mut self, bus: &mut dyn Bus, at: Option<&Uop>) -> Option<Exit> {
        let c = &mut *self.core;
        let (offset, next, idx) = at.map_or((0, 0, 0), |u| (u64::from(u.at), u.next(), u64::from(u.idx)));
        let start = c.gpr[RIP];
        let here = start.wrapping_add(offset) & c.lin_mask;
        c.icount += idx;
        c.cur_idx = 0;
        match c.why {
            Why::Fault(mut fault) => {
                c.gpr[RIP] = here;
                if at.is_some_and(Uop::is_stack_operand) {
                    c.stack_failed(Stop);
                    if let Why::Fault(stack) = c.why {
                        fault = stack;
                    }
                }
                if !is_canonical(c.fault_la) {
                    // Said; the next fault is another one.
                    c.fault_la = 0;
                }
                self.raise(bus, fault, Source::Fault)
            }
            Why::Interrupt(v) => {
                c.gpr[RIP] = start.wrapping_add(next) & c.lin_mask;
                // INT1 is a trap of the processor's: no privilege is needed for its gate.
                let source = if at.is_some_and(|u| u.imm == INT1) {
                    Source::Trap
                } else {
                    Source::Software
                };
                if self.core.deliver(bus, v, None, source).is_ok() {
                    self.core.icount += 1;
                    // TF is clear by now: the instruction does not end in a single-step trap.
                    self.core.trap_shadow_at = self.core.icount;
                    return None;
                }
                // The fault is the instruction's own.
                self.core.gpr[RIP] = here;
                match self.core.why {
                    Why::Fault(f) => self.raise(bus, f, Source::Fault),
                    _ => Some(Exit::TripleFault),
                }
            }
            Why::Single => {
                c.gpr[RIP] = here;
                self.one(bus)
            }
            Why::Jump => {
                c.icount += 1;
                None
            }
            Why::Exit(exit) => {
                c.gpr[RIP] = start.wrapping_add(next) & c.lin_mask;
                c.icount += 1;
                match exit {
                    // Something may be pending already: the boundary decides.
                    Exit::Hlt => {
                        c.halted = true;
                        c.recheck = true;
                        None
                    }
                    e => Some(e),
                }
            }
            Why::Breakpoint => {
                c.gpr[RIP] = here;
                self.stopped_at = Some(here);
                Some(Exit::Breakpoint)
            }
            Why::Yield => {
                c.gpr[RIP] = here;
                c.limit = c.limit.saturating_sub(YIELD_COST);
                // An instruction that began is no longer behind STI or MOV SS.
                c.shadow_at = u64::MAX;
                c.trap_shadow_at = u64::MAX;
                if c.watch.active || c.sys & rflags::TF != 0 {
                    // Breakpoints at a repetition are hit once (SDM volume 3 section 18.3.1.1).
                    c.sys |= rflags::RF;
                }
                None
            }
        }
    }

    /// Delivers an exception or interrupt. It retires nothing but uses up budget, so that a guest whose
    /// handler cannot be fetched does not keep `run` for ever.
    fn raise(&mut self, bus: &mut dyn Bus, fault: Fault, source: Source) -> Option<Exit> {
        self.core.limit = self.core.limit.saturating_sub(1);
        self.core
            .raise(bus, fault, source)
            .err()
            .map(|()| Exit::TripleFault)
    }

    /// Looks at everything that is looked at between blocks.
    #[cold]
    #[inline(never)]
    fn boundary(&mut self, bus: &mut dyn Bus) -> Option<Exit> {
        let (irq, nmi, kick) = self.attention.take();
        let c = &mut *self.core;
        c.irq_hint |= irq;
        c.nmi_pending |= nmi;
        c.cur_idx = 0;
        if kick {
            c.recheck = true;
            return Some(Exit::Kicked);
        }
        if c.icount >= c.limit {
            c.recheck = true;
            return Some(Exit::Budget);
        }
        let shadowed = c.icount == c.shadow_at && !c.halted;
        if !shadowed && c.nmi_pending && !c.nmi_masked {
            c.nmi_pending = false;
            c.nmi_masked = true;
            c.halted = false;
            let fault = Fault {
                vector: vector::NMI,
                error: None,
            };
            return self.raise(bus, fault, Source::External);
        }
        if !shadowed && c.irq_hint && c.sys & rflags::IF != 0 {
            bus.at_instruction(c.icount);
            if let Some(v) = bus.take_interrupt() {
                c.halted = false;
                return self.raise(
                    bus,
                    Fault {
                        vector: v,
                        error: None,
                    },
                    Source::External,
                );
            }
            c.irq_hint = false;
        }
        if c.halted {
            c.recheck = true;
            return Some(Exit::Hlt);
        }
        let watched = c.watch.active;
        let alone = watched || c.sys & rflags::TF != 0 || self.trace_instructions;
        c.recheck = alone || shadowed && (c.irq_hint || c.nmi_pending);
        if !c.recheck {
            return None;
        }
        if watched && c.icount != c.trap_shadow_at {
            let hits = c.watch_code();
            c.watch.hits = 0;
            if hits != 0 {
                return self.raise_debug(bus, hits, Source::Fault);
            }
        }
        self.one_with_traps(bus)
    }

    /// Runs one instruction, or one element of a repeated one, and raises the debug traps that it ends
    /// with. Behind MOV SS they wait.
    fn one_with_traps(&mut self, bus: &mut dyn Bus) -> Option<Exit> {
        const SINGLE_STEP: u64 = 1 << 14;
        let c = &mut *self.core;
        let step = if c.sys & rflags::TF != 0 { SINGLE_STEP } else { 0 };
        let retired = c.icount;
        c.sys &= !rflags::RF;
        c.why = Why::Jump;
        let exit = self.one(bus);
        let c = &mut *self.core;
        let causes = step | c.watch.hits;
        let held = c.icount == retired && c.why != Why::Yield || c.icount == c.trap_shadow_at;
        if exit.is_some() || causes == 0 || held {
            return exit;
        }
        // A trap behind HLT ends the halt.
        c.halted = false;
        c.watch.hits = 0;
        self.raise_debug(bus, causes, Source::Trap)
    }

    /// #DB with its causes in DR6.
    fn raise_debug(&mut self, bus: &mut dyn Bus, causes: u64, source: Source) -> Option<Exit> {
        self.core.report_debug(causes);
        let fault = Fault {
            vector: vector::DB,
            error: None,
        };
        self.raise(bus, fault, source)
    }

    fn trace(&mut self, bus: &mut dyn Bus) {
        let mut bytes = [0; 15];
        let mut n = 0;
        if let Ok(la) = self.core.fetch_linear()
            && let Ok(gpa) = self.core.fetch_address(bus, la)
        {
            n = self.core.fetch_bytes(bus, gpa, &mut bytes);
        }
        let state = self.core.state();
        let traced = Traced {
            cs: state.cs.selector,
            rip: state.rip,
            bitness: 16 << (self.core.key & key::CODE),
            bytes: &bytes[..n],
            gpr: &state.gpr,
            rflags: state.rflags,
        };
        if let Some(t) = &mut self.core.tracer {
            t.instruction(&traced);
        }
    }
}
