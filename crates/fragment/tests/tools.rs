//! The standard tools read what is compressed here, and what they compress is read here: `gzip`, `zstd`, and Python's `snappy`.
//! `scripts/setup.sh test` installs them.

#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use fragment::Codec;
use fragment::compress::{
    BLOCK_BYTES, Compressor, Decompressor, ENTRY_SPACING_BYTES, Noting, SeekIndex, Tail,
};

/// A tool, and what makes it compress and decompress from standard input to standard output.
struct Tool {
    codec: Codec,
    program: &'static str,
    compress: &'static [&'static str],
    decompress: &'static [&'static str],
}

/// Stands for the Python which has the package.
const PYTHON: &str = "python";

const TOOLS: [Tool; 4] = [
    Tool { codec: Codec::Gzip, program: "gzip", compress: &["-c"], decompress: &["-dc"] },
    Tool { codec: Codec::GzipOffload, program: "gzip", compress: &["-9c"], decompress: &["-dc"] },
    Tool { codec: Codec::Zstandard, program: "zstd", compress: &["-qc"], decompress: &["-dqc"] },
    Tool {
        codec: Codec::Snappy,
        program: PYTHON,
        compress: &["-c", "import snappy, sys; snappy.stream_compress(sys.stdin.buffer, sys.stdout.buffer)"],
        decompress: &[
            "-c",
            "import snappy, sys; snappy.stream_decompress(sys.stdin.buffer, sys.stdout.buffer)",
        ],
    },
];

const SIZES: [usize; 6] =
    [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 5 * BLOCK_BYTES + BLOCK_BYTES / 2];

impl Tool {
    /// What the tool makes of `input`.
    fn run(&self, args: &[&str], input: &[u8]) -> Vec<u8> {
        let program = if self.program == PYTHON { python() } else { self.program };
        let mut child = Command::new(program)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("{} does not start (scripts/setup.sh test installs it): {error}", self.program)
            });
        let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut output = Vec::new();
        std::thread::scope(|scope| {
            scope.spawn(move || stdin.write_all(input).unwrap());
            stdout.read_to_end(&mut output).unwrap();
        });
        let status = child.wait().unwrap();
        assert!(status.success(), "{} {args:?}: {status}", self.program);
        output
    }
}

/// The path of a Python with the package `snappy`.
fn python() -> &'static str {
    static PATH: LazyLock<String> = LazyLock::new(|| {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/python-snappy.sh");
        let output = Command::new(script).stderr(Stdio::inherit()).output().unwrap();
        assert!(output.status.success(), "{script} fails");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    });
    &PATH
}

/// Lines of numbers, which compress somewhat.
fn content(bytes: usize) -> Vec<u8> {
    let mut content: Vec<u8> =
        (0u64..).flat_map(|n| format!("{}\n", n * n % 1_000_003).into_bytes()).take(bytes).collect();
    // A stretch that does not compress.
    let noise = (0..bytes / 4).map(|n| ((n as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8);
    content.iter_mut().zip(noise).for_each(|(byte, noise)| *byte = noise);
    content
}

fn compressed(codec: Codec, content: &[u8]) -> Vec<u8> {
    let mut compressor = Compressor::new(codec, None, Vec::new()).unwrap();
    compressor.write_all(content).unwrap();
    compressor.finish().unwrap()
}

#[test]
fn tools_read_fragments() {
    for tool in TOOLS {
        for bytes in SIZES {
            let content = content(bytes);
            let stored = compressed(tool.codec, &content);
            let read = tool.run(tool.decompress, &stored);
            assert!(
                read == content,
                "{} reads {} of {bytes} bytes of {}",
                tool.program,
                read.len(),
                tool.codec
            );
        }
    }
}

#[test]
fn fragments_of_tools_are_read() {
    for tool in TOOLS {
        for bytes in SIZES {
            let content = content(bytes);
            let stored = tool.run(tool.compress, &content);
            let mut read = Vec::new();
            Decompressor::new(tool.codec, &stored[..]).unwrap().read_to_end(&mut read).unwrap();
            assert!(read == content, "{} of {bytes} bytes by {} differ", tool.codec, tool.program);
            // They write no index, and nothing that would be mistaken for one.
            let index = SeekIndex::read(tool.codec, &stored, stored.len() as u64, bytes as u64);
            assert_eq!(index, Tail::Nothing);
        }
    }
}

#[test]
fn fragments_may_be_joined_as_files_are() {
    for tool in TOOLS {
        let content = content(2 * BLOCK_BYTES + 5);
        let joined = compressed(tool.codec, &content).repeat(2);
        assert!(tool.run(tool.decompress, &joined) == content.repeat(2), "{}", tool.codec);
        let mut read = Vec::new();
        Decompressor::new(tool.codec, &joined[..]).unwrap().read_to_end(&mut read).unwrap();
        assert!(read == content.repeat(2), "{}", tool.codec);
    }
}

/// gzip and zstd test a file, and complain about what they do not know.
#[test]
fn tools_find_nothing_wrong() {
    for (codec, program) in [(Codec::Gzip, "gzip"), (Codec::Zstandard, "zstd")] {
        let stored = compressed(codec, &content(3 * BLOCK_BYTES));
        let mut child =
            Command::new(program).arg("-t").stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(&stored).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && !said.contains("ignored"), "{program} says: {said}");
    }
}

#[test]
fn what_tools_write_is_entered_in_the_middle() {
    let content = content(2 * ENTRY_SPACING_BYTES as usize + 1_234_567);
    let length = content.len() as u64;
    for tool in TOOLS {
        let whole = tool.run(tool.compress, &content);
        let parts: Vec<u8> = content.chunks(5 << 20).flat_map(|part| tool.run(tool.compress, part)).collect();
        for (stored, is_single) in [(whole, true), (parts, false)] {
            let mut reader =
                Decompressor::noting(tool.codec, &stored[..], Noting::Everywhere, length).unwrap();
            let mut read = Vec::new();
            reader.read_to_end(&mut read).unwrap();
            assert!(read == content, "{}", tool.program);
            let entries = reader.take_entries();
            // A Zstandard frame cannot be entered but at its beginning.
            let expected = if tool.codec == Codec::Zstandard { usize::from(!is_single) } else { 2 };
            assert!(
                entries.len() >= expected && (expected > 0 || entries.is_empty()),
                "{}: {entries:?}",
                tool.program
            );
            for entry in entries {
                let rest = &stored[usize::try_from(entry.stored).unwrap()..];
                let mut read = Vec::new();
                Decompressor::enter(tool.codec, rest, &entry, length)
                    .unwrap()
                    .read_to_end(&mut read)
                    .unwrap();
                assert!(
                    read == content[usize::try_from(entry.content).unwrap()..],
                    "{}: {entry:?}",
                    tool.program
                );
            }
        }
    }
}
