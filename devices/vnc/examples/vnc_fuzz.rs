// SPDX-License-Identifier: MIT
//! Clients that do anything to the VNC server: many at a time, wrong greetings, wrong, huge and cut messages, some
//! that never read, some that leave in the middle, while the screen changes. `--seed S --first N --count M`:
//! cases N to N + M - 1, each of [`OPERATIONS`] messages and other operations.
//!
//! Always true: what the clients say depends on the case's number and the seed only; how far the server's
//! threads are does not.
//! What must hold: no panic, no hang, bounded memory and log, and a client that behaves sees the picture, then
//! what changes of it, beside all others.

#[path = "vnc_fuzz/client.rs"]
mod client;
#[path = "../../../vm_loaders/examples/mutate/counting.rs"]
mod counting;

use client::{Hostile, Outcome};
use counting::measured;
use soak_case::{Cases, LogMeter, Random, Reached, at_most};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use vnc::{Console, Frame, Server};

/// Operations of a case.
const OPERATIONS: u64 = 1000;
/// Clients that the case tries to have; the server lets 16 in.
const CLIENTS: usize = 24;
/// How long the server waits for a client; a case for a client that behaves; any case.
const PATIENCE: Duration = Duration::from_millis(50);
const GOOD: Duration = Duration::from_secs(20);
const LIMIT: Duration = Duration::from_secs(100);
/// Bytes of memory: two pictures, buffers and a thread for each of 16 clients.
const MOST_MEMORY: u64 = 32 << 20;
/// Lines of the log of one server.
const MOST_LINES: u64 = 200;

/// What many cases together must come to.
const PLACES: [&str; 6] = [
    "pictures looked at",
    "keys pressed",
    "clients left by the server",
    "whole pictures seen",
    "changes seen",
    "sizes followed",
];

type Screen = Arc<Mutex<(u16, u16, u32)>>;

/// The picture of a screen: its size, and a number that its pixels follow from.
fn picture((width, height, number): (u16, u16, u32)) -> Frame {
    let pixels = (0..u32::from(width) * u32::from(height)).map(|i| i.wrapping_mul(number) & 0xFF_FFFF);
    Frame::new(width, height, pixels.collect()).expect("as many pixels as the size says")
}

fn shown(screen: &Screen) -> (u16, u16, u32) {
    *screen.lock().unwrap_or_else(PoisonError::into_inner)
}

fn show(screen: &Screen, random: &mut Random) {
    let mut screen = screen.lock().unwrap_or_else(PoisonError::into_inner);
    // Clients that cannot follow are left then.
    if screen.0 == 0 || random.one_in(32) {
        screen.0 = 1 + random.below(150) as u16;
        screen.1 = 1 + random.below(150) as u16;
    }
    screen.2 = random.bits() as u32;
}

/// A part of an update: its place, and its pixels unless it is a new size.
type Part = ([u16; 4], Option<Vec<u8>>);

/// A client that behaves.
struct Good(TcpStream);

impl Good {
    /// Connects, greets, and says that it follows sizes; waits for a place.
    fn connect(address: SocketAddr) -> io::Result<Self> {
        let end = Instant::now() + GOOD;
        loop {
            let stream = TcpStream::connect(address)?;
            stream.set_read_timeout(Some(GOOD))?;
            let mut client = Self(stream);
            match client.greet() {
                Ok(()) => return Ok(client),
                Err(error) if Instant::now() > end => return Err(error),
                // All places are taken.
                Err(_) => std::thread::sleep(PATIENCE / 10),
            }
        }
    }

    fn greet(&mut self) -> io::Result<()> {
        self.0
            .write_all(b"RFB 003.008\n\x01\x01\x02\x00\x00\x01\xFF\xFF\xFF\x21")?;
        // Version, security types, result, sizes, format, name.
        self.0.read_exact(&mut [0; 12 + 2 + 4 + 4 + 16 + 4 + 7])
    }

    fn request(&mut self, incremental: bool) -> io::Result<()> {
        self.0
            .write_all(&[3, incremental.into(), 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF])
    }

    fn halves<const N: usize>(&mut self) -> io::Result<[u16; N]> {
        let mut halves = [0; N];
        for half in &mut halves {
            let mut bytes = [0; 2];
            self.0.read_exact(&mut bytes)?;
            *half = u16::from_be_bytes(bytes);
        }
        Ok(halves)
    }

    /// Takes one update.
    fn update(&mut self) -> io::Result<Vec<Part>> {
        let [_, parts] = self.halves()?;
        let mut update = Vec::new();
        for _ in 0..parts {
            let place: [u16; 4] = self.halves()?;
            let raw = self.halves::<2>()? == [0, 0];
            let mut pixels = vec![
                0;
                if raw {
                    usize::from(place[2]) * usize::from(place[3]) * 4
                } else {
                    0
                }
            ];
            self.0.read_exact(&mut pixels)?;
            update.push((place, raw.then_some(pixels)));
        }
        Ok(update)
    }

    /// Asks for everything until it has it at the size that is shown.
    fn sees(&mut self, screen: &Screen, reached: &Reached<{ PLACES.len() }>) -> Result<(), String> {
        let text = |error: io::Error| format!("a client that behaves is left: {error}");
        let now = shown(screen);
        for _ in 0..3 {
            self.request(false).map_err(text)?;
            let update = self.update().map_err(text)?;
            let Some(pixels) = &update[0].1 else {
                reached.count(5);
                continue;
            };
            let right: Vec<u8> = (0..u32::from(now.0) * u32::from(now.1))
                .flat_map(|i| (i.wrapping_mul(now.2) & 0xFF_FFFF).to_le_bytes())
                .collect();
            if update[0].0 != [0, 0, now.0, now.1] || *pixels != right {
                return Err("a client that behaves sees another picture".into());
            }
            reached.count(3);
            return Ok(());
        }
        Err("a client that behaves sees no picture".into())
    }
}

struct Bench<'r> {
    address: SocketAddr,
    screen: Screen,
    random: Random,
    clients: Vec<Hostile>,
    reached: &'r Reached<{ PLACES.len() }>,
}

impl Bench<'_> {
    /// Operations that were done.
    fn step(&mut self) -> io::Result<u64> {
        let random = &mut self.random;
        if self.clients.len() < CLIENTS && random.one_in(8) {
            self.clients.push(Hostile::connect(self.address, random)?);
            return Ok(1);
        }
        if random.one_in(16) {
            show(&self.screen, random);
            return Ok(1);
        }
        if self.clients.is_empty() {
            return Ok(1);
        }
        let at = random.index(self.clients.len());
        let client = &mut self.clients[at];
        let mut done = 1;
        let outcome = match random.below(32) {
            0 => client.babble(random),
            1 => Outcome::Left,
            2..=9 => client.listen(random),
            _ => {
                done = 1 + random.below(16);
                client.talk(random, done)
            }
        };
        if outcome == Outcome::Left {
            drop(self.clients.swap_remove(at));
            self.reached.count(2);
        }
        Ok(done)
    }
}

fn case(seed: u64, number: u64, reached: &Arc<Reached<{ PLACES.len() }>>) -> Result<(), String> {
    let text = |error: io::Error| error.to_string();
    let mut random = Random::of_case(seed, number);
    let screen = Screen::default();
    show(&screen, &mut random);
    let (looked, pressed, theirs) = (reached.clone(), reached.clone(), screen.clone());
    let keys = Arc::new(AtomicU64::new(0));
    let counted = keys.clone();
    let console = Console {
        frame: Box::new(move || {
            looked.count(0);
            picture(shown(&theirs))
        }),
        key: Box::new(move |_, _| {
            pressed.count(1);
            counted.fetch_add(1, Ordering::Relaxed);
        }),
    };
    let server = Server::with_patience(0, console, PATIENCE).map_err(text)?;
    let mut bench = Bench {
        address: server.address(),
        screen: screen.clone(),
        random,
        clients: Vec::new(),
        reached,
    };
    let mut good = Good::connect(server.address()).map_err(text)?;
    let mut done = 0;
    while done < OPERATIONS {
        done += bench.step().map_err(text)?;
    }
    good.sees(&screen, reached)?;
    // A new client once the others have left, and what changes in the last row.
    bench.clients.clear();
    let mut late = Good::connect(server.address()).map_err(text)?;
    late.sees(&screen, reached)?;
    late.request(true).map_err(text)?;
    {
        let mut screen = screen.lock().unwrap_or_else(PoisonError::into_inner);
        *screen = (screen.0, screen.1, screen.2 ^ 1);
    }
    let (width, height, _) = shown(&screen);
    if width > 1 || height > 1 {
        let changed = late.update().map_err(text)?;
        if changed.iter().any(|(_, pixels)| pixels.is_none()) {
            return Err("a size that is the same is announced".into());
        }
        reached.count(4);
    }
    if keys.load(Ordering::Relaxed) > OPERATIONS * 40 {
        return Err("more keys than anybody has pressed".into());
    }
    Ok(())
}

fn main() -> ExitCode {
    let cases = Cases::from_command_line(100).limited(LIMIT);
    let (meter, reached) = (LogMeter::install(), Arc::new(Reached::new(PLACES)));
    let code = cases.run(|number| {
        let (used, (said, outcome)) = measured(|| meter.measured(|| case(cases.seed, number, &reached)));
        outcome?;
        at_most("bytes of memory", used, MOST_MEMORY)?;
        at_most("lines of the log", said, MOST_LINES)
    });
    reached.finish(code, cases, 50)
}
