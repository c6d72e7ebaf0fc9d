//! Machines that are network namespaces, and cables between them.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// A machine: a network namespace, which goes with the handle.
pub struct Machine {
    name: String,
}

impl Machine {
    /// A machine with nothing but itself to speak to.
    ///
    /// # Errors
    /// Why this computer does not permit it.
    pub fn new(role: &str) -> Result<Self, String> {
        let name = format!("palimpsest-{}-{role}", std::process::id());
        run(&["ip", "netns", "add", &name])?;
        let machine = Self { name };
        machine.run(&["ip", "link", "set", "lo", "up"])?;
        Ok(machine)
    }

    /// Its namespace.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn run(&self, command: &[&str]) -> Result<(), String> {
        run(&[&["ip", "netns", "exec", &self.name], command].concat())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Its devices go with it.
        let _ = run(&["ip", "netns", "delete", &self.name]);
    }
}

/// How well a cable carries packets, in each direction.
#[derive(Clone, Copy)]
pub struct Quality {
    /// Milliseconds.
    pub delay: u32,
    /// Milliseconds that the delay is longer or shorter, at most.
    pub jitter: u32,
    /// The share of packets that are lost.
    pub loss: f64,
}

impl Quality {
    /// Carries nothing.
    pub const CUT: Self = Self {
        delay: 0,
        jitter: 0,
        loss: 1.0,
    };
}

/// A cable between two machines.
pub struct Cable {
    near: String,
    carrier: Carrier,
}

enum Carrier {
    /// A veth pair under `tc netem`: namespace and device of each end.
    Netem([(String, String); 2]),
    /// `tests/python/cable.py`, where the kernel has no netem.
    Program {
        child: Child,
        orders: ChildStdin,
        said: BufReader<ChildStdout>,
    },
}

impl Cable {
    /// Lays a cable that loses nothing yet. `number` tells cables apart.
    ///
    /// # Errors
    /// Why this computer does not permit it.
    pub fn lay(one: &Machine, other: &Machine, number: u8) -> Result<Self, String> {
        let ends =
            ["a", "b"].map(|end| format!("p{}{end}{number}", std::process::id() % 1_000_000));
        let carrier = match netem([one, other], &ends) {
            Ok(()) => {
                let place = |machine: &Machine, end: &String| (machine.name.clone(), end.clone());
                Carrier::Netem([place(one, &ends[0]), place(other, &ends[1])])
            }
            Err(why) => {
                eprintln!("no netem ({why}): the cable is a program");
                program(&ends)?
            }
        };
        let addresses = [1, 2].map(|host| format!("10.77.{number}.{host}"));
        for (machine, (end, address)) in [one, other].iter().zip(ends.iter().zip(&addresses)) {
            if matches!(carrier, Carrier::Program { .. }) {
                run(&["ip", "link", "set", end, "netns", &machine.name])?;
            }
            machine.run(&["ip", "address", "add", &format!("{address}/30"), "dev", end])?;
            machine.run(&["ip", "link", "set", end, "up"])?;
        }
        Ok(Self {
            near: addresses[0].clone(),
            carrier,
        })
    }

    /// The first machine's address on the cable.
    pub fn near(&self) -> &str {
        &self.near
    }

    /// How it carries packets from now on.
    pub fn set(&mut self, quality: Quality) {
        let Quality {
            delay,
            jitter,
            loss,
        } = quality;
        match &mut self.carrier {
            Carrier::Netem(ends) => {
                let (delay, jitter) = (format!("{delay}ms"), format!("{jitter}ms"));
                let loss = format!("{}%", loss * 100.0);
                for (machine, end) in ends {
                    let replace = ["tc", "qdisc", "replace", "dev", end, "root", "netem"];
                    let how = ["delay", &delay, &jitter, "loss", &loss];
                    let inside = ["ip", "netns", "exec", machine];
                    run(&[&inside[..], &replace, &how].concat()).unwrap();
                }
            }
            Carrier::Program { orders, said, .. } => {
                writeln!(orders, "{delay} {jitter} {loss}").unwrap();
                let mut answer = String::new();
                said.read_line(&mut answer).unwrap();
                assert_eq!(answer, "set\n");
            }
        }
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        if let Carrier::Program { child, .. } = &mut self.carrier {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn netem(machines: [&Machine; 2], ends: &[String; 2]) -> Result<(), String> {
    let [one, other] = machines;
    run(&[
        "ip",
        "link",
        "add",
        &ends[0],
        "netns",
        &one.name,
        "type",
        "veth",
        "peer",
        "name",
        &ends[1],
        "netns",
        &other.name,
    ])?;
    for (machine, end) in machines.iter().zip(ends) {
        let tried = machine.run(&[
            "tc", "qdisc", "add", "dev", end, "root", "netem", "delay", "0ms",
        ]);
        if tried.is_err() {
            // One end takes the other with it.
            one.run(&["ip", "link", "delete", &ends[0]])?;
            return tried;
        }
    }
    Ok(())
}

fn program(ends: &[String; 2]) -> Result<Carrier, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut child = Command::new("python3")
        .arg(root.join("tests/python/cable.py"))
        .args(ends)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("python3: {error}"))?;
    let (orders, said) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut said = BufReader::new(said);
    let mut ready = String::new();
    said.read_line(&mut ready).unwrap();
    if ready != "ready\n" {
        let _ = child.wait();
        return Err("there is no TUN device for us".to_owned());
    }
    Ok(Carrier::Program {
        child,
        orders,
        said,
    })
}

fn run(command: &[&str]) -> Result<(), String> {
    let output = Command::new(command[0])
        .args(&command[1..])
        .output()
        .map_err(|error| format!("{}: {error}", command[0]))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{}: {}", command.join(" "), said.trim()))
}
