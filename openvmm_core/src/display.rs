// SPDX-License-Identifier: MIT
//! The screen and keyboard of a VM, on a VNC server and at the prompt.
//!
//! Always true: what is shown is what lies in guest memory when somebody looks; while the guest shows nothing
//! the screen is black. Not here: the protocols (`vnc`, `vmbus::video`, `vmbus::keyboard`).

use anyhow::Context;
use chipset_device::Device;
use guest_memory::DmaMemory;
use openvmm_defs::GfxConfig;
use std::sync::Arc;
use vmbus::VmBus;
use vmbus::keyboard::{KeyEvent, Keys, layout};
use vmbus::video::{Picture, Screen};
use vnc::{Console, Frame, Server};

/// Size of the black screen.
const BLACK: (u16, u16) = (1024, 768);

/// Presses keys of the guest's keyboard.
#[derive(Clone)]
pub(crate) struct Presser {
    /// What the keyboard's channel takes them from.
    pub(crate) keys: Keys,
    /// The bus, and the channel's place on it.
    pub(crate) bus: Arc<VmBus>,
    pub(crate) channel: usize,
}

impl Presser {
    fn press(&self, events: impl IntoIterator<Item = KeyEvent>) {
        self.keys.push(events);
        self.bus.poll(self.channel);
    }

    /// Types `text` and the enter key.
    pub(crate) fn type_line(&self, text: &str) {
        let mut events = layout::of_text(text);
        events.extend(layout::of_text("\n"));
        self.press(events);
    }
}

/// The VNC server as a part of the machine, with which it ends.
pub(crate) struct Display(Server);

impl Display {
    /// Serves `screen` and the keyboard behind `presser`.
    pub(crate) fn start(
        config: &GfxConfig,
        screen: Screen,
        presser: Presser,
        memory: DmaMemory,
    ) -> anyhow::Result<Self> {
        let console = Console {
            frame: Box::new(move || frame(&screen, &memory)),
            key: Box::new(move |symbol, down| presser.press(layout::of_symbol(symbol, down))),
        };
        let port = config.vnc_port;
        let server = Server::start(port, console).with_context(|| {
            format!("--vnc-port {port}: cannot listen on 127.0.0.1; choose another, or 0 for any")
        })?;
        tracing::info!("vnc: listening on {}", server.address());
        Ok(Self(server))
    }
}

impl Device for Display {
    fn reset(&mut self) {
        self.0.refill_log();
    }

    fn inspect(&self) -> String {
        format!("listening {}\n", self.0.address())
    }
}

/// The picture as it is now.
fn frame(screen: &Screen, memory: &DmaMemory) -> Frame {
    let black = || Frame::black(BLACK.0, BLACK.1);
    screen
        .picture()
        .and_then(|picture| read(&picture, memory))
        .unwrap_or_else(black)
}

fn read(picture: &Picture, memory: &DmaMemory) -> Option<Frame> {
    let (width, height) = (picture.width.try_into().ok()?, picture.height.try_into().ok()?);
    Frame::new(width, height, picture.pixels(memory)?)
}
