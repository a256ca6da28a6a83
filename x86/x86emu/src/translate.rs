// SPDX-License-Identifier: MIT
//! From instruction bytes to blocks of uops.
//!
//! Always true: a block is at most [`MAX_INSTRUCTIONS`] long and lies on one page, unless its only
//! instruction crosses into the next one; reading its bytes has no effect on the guest but accessed
//! bits and page faults. Not here: what the uops do.

mod convert;
mod map;
mod sse;

use crate::bus::Bus;
use crate::cache::{Block, Cache};
use crate::code_map::chunk_mask;
use crate::core::{CS, Core, RIP, Stop, key};
use crate::mem::{Access, Generation};
use crate::ops;
use crate::ops::fuse::Shape;
use crate::uop::Uop;
use iced_x86::{Decoder, DecoderError, DecoderOptions, Instruction};
use std::collections::HashSet;

const MAX_INSTRUCTIONS: usize = 48;
const MAX_LEN: usize = 15;

/// Bytes for translation: what is left of the first page, and, for one crossing instruction, of the
/// next.
struct Window {
    bytes: [u8; 4096 + MAX_LEN],
    /// Valid bytes.
    len: usize,
}

impl Core {
    /// The guest physical address of code at a linear address.
    pub(crate) fn fetch_address(&mut self, bus: &mut dyn Bus, la: u64) -> Result<u64, Stop> {
        let regime = match self.regime {
            2 => 0,
            r => r,
        };
        let saved = std::mem::replace(&mut self.regime, regime);
        let r = self.walk(bus, la, Access::Exec);
        self.regime = saved;
        r
    }

    /// Linear address of RIP; #GP(0) outside the segment.
    pub(crate) fn fetch_linear(&mut self) -> Result<u64, Stop> {
        let rip = self.gpr[RIP];
        if self.is_code64() {
            return Ok(rip);
        }
        if rip > u64::from(self.seg[CS].limit) {
            return self.gp(0);
        }
        Ok(self.seg_base[CS].wrapping_add(rip) & 0xFFFF_FFFF)
    }

    /// Reads code bytes of one page from `gpa` on, at most to the page's end.
    pub(crate) fn fetch_bytes(&mut self, bus: &mut dyn Bus, gpa: u64, out: &mut [u8]) -> usize {
        let n = out.len().min(4096 - (gpa as usize & 0xFFF));
        match self.phys_page(bus, gpa >> 12) {
            Some(p) => p.copy_out(gpa as usize & 0xFFF, &mut out[..n]),
            None => {
                bus.at_instruction(self.icount);
                for (i, b) in out[..n].iter_mut().enumerate() {
                    bus.mmio_read(gpa + i as u64, std::slice::from_mut(b));
                }
            }
        }
        n
    }
}

/// What a translation is for.
pub(crate) struct Request<'a> {
    pub la: u64,
    pub gpa: u64,
    pub key: u32,
    pub breakpoints: &'a HashSet<u64>,
}

/// Translates the block at RIP and adds it to the cache.
pub(crate) fn translate(
    c: &mut Core,
    bus: &mut dyn Bus,
    cache: &mut Cache,
    rq: &Request<'_>,
) -> Result<u32, Stop> {
    let mut w = Window {
        bytes: [0; 4096 + MAX_LEN],
        len: 0,
    };
    let page = c.phys_page(bus, rq.gpa >> 12);
    // MMIO is read byte by byte; take one instruction's worth.
    let want = if page.is_some() { 4096 } else { MAX_LEN };
    w.len = c.fetch_bytes(bus, rq.gpa, &mut w.bytes[..want]);
    let limit_left = match c.is_code64() {
        true => u64::MAX,
        false => u64::from(c.seg[CS].limit).saturating_sub(c.gpr[RIP]) + 1,
    };
    w.len = w.len.min(limit_left.min(4096) as usize);
    let single = rq.key & key::SINGLE != 0 || page.is_none();
    let first = cache.uops.len() as u32;
    let mut second = None;
    let mut body = build(cache, &w, rq, single);
    if body.count == 0 && body.short {
        let la = rq.la.wrapping_add(w.len as u64) & c.lin_mask;
        if w.len as u64 >= limit_left {
            return c.gp(0);
        }
        if rq.la & 0xFFF != 0 && la & 0xFFF == 0 {
            let gpa = c.fetch_address(bus, la)?;
            let at = w.len;
            let left = (limit_left - at as u64).min(MAX_LEN as u64) as usize;
            w.len += c.fetch_bytes(bus, gpa, &mut w.bytes[at..at + left]);
            second = Some(gpa);
            body = build(cache, &w, rq, true);
        }
        if body.count == 0 {
            // Longer than 15 bytes, or cut by the limit.
            return c.gp(0);
        }
    }
    let bytes = cache.bytes.len() as u32;
    cache.bytes.extend_from_slice(&w.bytes[..body.len]);
    let end = cache.uops.len() as u32;
    let block = Block {
        first,
        end,
        count: body.count,
        len: body.len as u16,
        falls_through: body.falls_through,
        // Stores to pages outside the code map are not seen: such a block is compared every time.
        generation: Generation::of(page.as_ref().filter(|_| c.code.covers(rq.gpa >> 12))),
        gpn: rq.gpa >> 12,
        second: second.map(|gpa| {
            let p = c.phys_page(bus, gpa >> 12);
            (Generation::of(p.as_ref()), gpa >> 12)
        }),
        gpa: rq.gpa,
        key: rq.key,
        bytes,
        links: Block::no_links(),
    };
    mark_code(c, &block);
    Ok(cache.insert(block))
}

/// Tells the code map about a block.
pub(crate) fn mark_code(c: &mut Core, b: &Block) {
    let offset = b.gpa & 0xFFF;
    let first = (4096 - offset).min(b.len.into());
    let mut marks = vec![(b.gpn, chunk_mask(offset, first))];
    if let Some((_, gpn)) = b.second
        && u64::from(b.len) > first
    {
        marks.push((gpn, chunk_mask(0, u64::from(b.len) - first)));
    }
    for (gpn, mask) in marks {
        if c.code.mark(gpn, mask) {
            c.tlb.watch(Some(gpn));
        }
    }
}

struct Body {
    count: u16,
    len: usize,
    falls_through: bool,
    /// The bytes ended inside an instruction.
    short: bool,
}

/// Decodes instructions until the block ends.
fn build(cache: &mut Cache, w: &Window, rq: &Request<'_>, single: bool) -> Body {
    let bitness = [16, 32, 64, 64][(rq.key & key::CODE) as usize];
    let mut d = Decoder::with_ip(bitness, &w.bytes[..w.len], 0, DecoderOptions::NONE);
    let mut body = Body {
        count: 0,
        len: 0,
        falls_through: true,
        short: false,
    };
    let mut ins = Instruction::default();
    let mut before = None;
    let max = if single { 1 } else { MAX_INSTRUCTIONS };
    while usize::from(body.count) < max && d.can_decode() {
        let at = d.position();
        let here = rq.la.wrapping_add(at as u64);
        if rq.breakpoints.contains(&here) && rq.key & key::SINGLE == 0 {
            if body.count == 0 {
                cache.uops.push(ops::special(ops::system::breakpoint, 0, 0));
                return Body {
                    count: 1,
                    len: 1,
                    falls_through: false,
                    short: false,
                };
            }
            break;
        }
        d.decode_out(&mut ins);
        if ins.is_invalid() {
            if d.last_error() == DecoderError::NoMoreBytes && w.len - at < MAX_LEN {
                body.short = body.count == 0;
                break;
            }
            let len = d.position() - at;
            cache.uops.push(if len >= MAX_LEN {
                ops::too_long(at, body.count)
            } else {
                ops::undefined(&w.bytes[at..(at + len.max(1)).min(w.len)], at, body.count)
            });
            body.count += 1;
            body.len = at + len.max(1);
            body.falls_through = false;
            return body;
        }
        let source = convert::Source {
            ins: &ins,
            key: rq.key,
            at,
            idx: body.count as u8,
            bytes: &w.bytes[at..at + ins.len()],
        };
        let (uop, end) = convert::convert(&source);
        if rq.key & key::FPU_TRAP != 0
            && let Some(gate) = sse::gate(&ins, at, body.count as u8)
        {
            cache.uops.push(gate);
        }
        push(cache, before, uop, convert::jump_condition(&source));
        before = convert::shape(&source);
        body.count += 1;
        body.len = at + ins.len();
        match end {
            convert::End::No => {}
            convert::End::Falls => return body,
            convert::End::Jumps => {
                body.falls_through = false;
                return body;
            }
        }
    }
    if !d.can_decode() && body.count == 0 {
        body.short = true;
    }
    body
}

/// Appends a uop, fused with the one before where there is a fused form.
fn push(cache: &mut Cache, before: Option<Shape>, uop: Uop, cc: Option<u8>) {
    if let (Some(shape), Some(cc)) = (before, cc)
        && let Some(last) = cache.uops.last_mut()
        && let Some(fused) = ops::fuse::fuse(last, shape, &uop, cc)
    {
        *last = fused;
        return;
    }
    cache.uops.push(uop);
}
