/** A child for watched-child.test.ts: says what it is told to, then ends, fails, or goes on for ever. */
const [, , how] = process.argv;
process.send?.({ kind: "fact", big: 2n ** 60n });
switch (how) {
  case "ends":
    process.disconnect();
    break;
  case "fails":
    process.stderr.write("first line\nno such thing\n", () => process.exit(7));
    break;
  case "hangs":
    setInterval(() => undefined, 1_000);
    break;
  case "hangs after good-bye":
    process.disconnect();
    setInterval(() => undefined, 1_000);
    break;
  default:
    throw new Error(`unknown: ${String(how)}`);
}
