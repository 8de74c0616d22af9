//! `courant attach-uuids`: gives each line of text files a UUID, so that it can be appended as a message.
//!
//! Messages are taken exactly once if they carry a UUID of their producer's: a reader passes over one that it has seen.
//! Every run is a producer of its own, and its UUIDs count up. So that a repeated append adds nothing, the output of one
//! run is kept in a file, and that file is appended.

mod template;

use clap::builder::RangedU64ValueParser;
use message::{ClockSource, Flags, ProducerId, Uuid};
use runtime::{BoxError, Clock, Entropy};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use template::Template;

/// Bytes which are read at once.
const READ_BYTES: usize = 256 << 10;

/// Options.
#[derive(Debug, clap::Args)]
pub struct AttachUuidsArgs {
    /// What is printed for a line: a Go template of {{.UUID}} and {{.Line}}. Mind that the shell writes a line feed as
    /// $'\n'.
    #[arg(long, value_name = "TEMPLATE", default_value = "{{.UUID}},{{.Line}}\n", hide_default_value = true)]
    template: String,
    /// Longest line, bytes, at most 1 GiB. A line is held in memory.
    #[arg(long, value_name = "BYTES", default_value_t = 4 << 20,
        value_parser = RangedU64ValueParser::<usize>::new().range(1..=1 << 30))]
    max_length: usize,
    /// Leave out the first line of each file.
    #[arg(long)]
    skip_header: bool,
    /// Text files; standard input if there are none.
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// Runs the command.
pub fn run(args: &AttachUuidsArgs) -> Result<(), BoxError> {
    let template = Template::parse(&args.template).map_err(|e| format!("--template: {e}"))?;
    let mut random = [0; 6];
    random.copy_from_slice(&Entropy::system().u64().to_le_bytes()[..6]);
    let mut output = Attached {
        args,
        template,
        producer: ProducerId::from_random(random),
        clocks: ClockSource::new(),
        clock: Clock::system(),
        stdout: std::io::stdout().lock(),
    };
    if args.files.is_empty() {
        return output.attach("standard input", std::io::stdin().lock());
    }
    // All of them are there before anything is printed.
    let open = |path: &PathBuf| {
        let file = File::open(path).map_err(|e| format!("opening {}: {e}", path.display()))?;
        Ok::<_, BoxError>((path.display().to_string(), file))
    };
    let files = args.files.iter().map(open).collect::<Result<Vec<_>, _>>()?;
    files.into_iter().try_for_each(|(name, file)| output.attach(&name, file))
}

struct Attached<'a, W> {
    args: &'a AttachUuidsArgs,
    template: Template,
    producer: ProducerId,
    clocks: ClockSource,
    clock: Clock,
    stdout: W,
}

impl<W: Write> Attached<'_, W> {
    fn attach(&mut self, name: &str, input: impl Read) -> Result<(), BoxError> {
        let mut input = BufReader::with_capacity(READ_BYTES, input);
        let (mut line, mut output) = (Vec::new(), Vec::new());
        let longest = self.args.max_length;
        for number in 1_u64.. {
            line.clear();
            let read = input.by_ref().take(longest as u64 + 2).read_until(b'\n', &mut line);
            if read.map_err(|e| format!("reading {name}: {e}"))? == 0 {
                break;
            }
            let content = line.strip_suffix(b"\n").unwrap_or(&line);
            let content = content.strip_suffix(b"\r").unwrap_or(content);
            if content.len() > longest {
                self.write(&mut output)?;
                return Err(format!("{name}: line {number} is longer than {longest} bytes").into());
            }
            if !(self.args.skip_header && number == 1) {
                self.clocks.update(self.clock.unix_now());
                let uuid = Uuid::build(self.producer, self.clocks.tick(), Flags::OUTSIDE_TXN);
                self.template.render(&uuid.to_string(), content, &mut output);
            }
            // The next read may wait for somebody to write.
            if input.buffer().is_empty() || output.len() >= READ_BYTES {
                self.write(&mut output)?;
            }
        }
        self.write(&mut output)
    }

    fn write(&mut self, output: &mut Vec<u8>) -> Result<(), BoxError> {
        self.stdout.write_all(output)?;
        self.stdout.flush()?;
        output.clear();
        Ok(())
    }
}
