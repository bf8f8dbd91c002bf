const PURE = "^lib/(format|lease|fence|group)/";
const EDGE = "^lib/(system|net)/";

/** @type {import('dependency-cruiser').IConfiguration} */
module.exports = {
  forbidden: [
    {
      name: "no-circular",
      comment:
        "Nothing is loaded in a circle. Types of parts that are made together may name each other.",
      severity: "error",
      from: {},
      to: { circular: true, viaOnly: { dependencyTypesNot: ["type-only"] } },
    },
    {
      name: "pure-stays-pure",
      comment: "The protocol folders see each other, port types and node:assert; nothing else.",
      severity: "error",
      from: { path: PURE },
      to: { pathNot: [PURE, "^lib/port/", "^lib/errors\\.ts$", "^(node:)?assert(/strict)?$"] },
    },
    {
      name: "format-is-the-bottom",
      severity: "error",
      from: { path: "^lib/format/" },
      to: { pathNot: ["^lib/format/", "^lib/errors\\.ts$", "^(node:)?assert(/strict)?$"] },
    },
    {
      name: "port-is-types-only",
      severity: "error",
      from: { path: "^lib/port/" },
      to: { dependencyTypesNot: ["type-only"] },
    },
    {
      name: "edges-do-not-know-the-daemon",
      severity: "error",
      from: { path: EDGE },
      to: { path: "^lib/(daemon|pulse|guard|health|doctor|cli)/" },
    },
    {
      name: "doctor-rules-only-judge",
      comment:
        "What doctor says follows from the facts given; the edges' types are all that it knows of them.",
      severity: "error",
      from: { path: "^lib/doctor/rules/" },
      to: {
        pathNot: ["^lib/(doctor|health|lease|format)/", "^(node:)?assert(/strict)?$"],
        dependencyTypesNot: ["type-only"],
      },
    },
    {
      name: "cli-only-from-bin",
      severity: "error",
      from: { path: "^lib/", pathNot: "^lib/cli/" },
      to: { path: "^lib/cli/" },
    },
    {
      name: "production-never-imports-test",
      severity: "error",
      from: { path: "^(bin|lib)/" },
      to: { path: "^test/" },
    },
    {
      name: "libc-and-subprocesses-only-in-system",
      severity: "error",
      from: { path: "^(bin|lib)/", pathNot: "^lib/system/" },
      to: { path: ["node_modules/(koffi|execa)/", "^(node:)?child_process$"] },
    },
    {
      name: "the-initiator-stands-alone",
      comment:
        "It is an entry of the package for programs that have nothing else to do with sharedha: the error type and the one way to start a program are all it may take.",
      severity: "error",
      from: { path: "^lib/node-iscsi-initiator/" },
      to: {
        path: "^(lib|bin)/",
        pathNot: "^lib/(node-iscsi-initiator/|errors\\.ts$|system/process\\.ts$)",
      },
    },
    {
      name: "the-initiator-by-its-entry",
      comment: "The rest of sharedha uses what any other program can use.",
      severity: "error",
      from: { path: "^(lib|bin)/", pathNot: "^lib/node-iscsi-initiator/" },
      to: { path: "^lib/node-iscsi-initiator/", pathNot: "^lib/node-iscsi-initiator/index\\.ts$" },
    },
    {
      name: "no-dev-dependency-in-production",
      severity: "error",
      from: { path: "^(bin|lib)/" },
      to: { dependencyTypes: ["npm-dev"], dependencyTypesNot: ["type-only"] },
    },
    { name: "resolvable", severity: "error", from: {}, to: { couldNotResolve: true } },
    {
      name: "no-orphans",
      severity: "error",
      from: { orphan: true, path: "^lib/", pathNot: "\\.d\\.ts$" },
      to: {},
    },
  ],
  options: {
    doNotFollow: { path: "node_modules" },
    tsConfig: { fileName: "tsconfig.json" },
    tsPreCompilationDeps: true,
    enhancedResolveOptions: {
      exportsFields: ["exports"],
      conditionNames: ["import", "node", "default", "types"],
    },
  },
};
