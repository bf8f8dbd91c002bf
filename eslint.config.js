import js from "@eslint/js";
import { defineConfig } from "eslint/config";
import tseslint from "typescript-eslint";

const noEnum = { selector: "TSEnumDeclaration", message: "Use a union of string literals." };
const injected = [
  "Date",
  "performance",
  "process",
  "setTimeout",
  "setInterval",
  "setImmediate",
  "queueMicrotask",
  "crypto",
  "fetch",
];

export default defineConfig(
  { ignores: ["dist/", "coverage/", "fixtures/"] },
  js.configs.recommended,
  tseslint.configs.strictTypeChecked,
  tseslint.configs.stylisticTypeChecked,
  {
    languageOptions: {
      parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname },
    },
    linterOptions: { reportUnusedDisableDirectives: "error" },
    rules: {
      "@typescript-eslint/switch-exhaustiveness-check": [
        "error",
        { considerDefaultExhaustiveForUnions: true },
      ],
      "@typescript-eslint/restrict-template-expressions": [
        "error",
        { allowNumber: true, allowBoolean: true },
      ],
      "@typescript-eslint/consistent-type-imports": ["error", { fixStyle: "inline-type-imports" }],
      "@typescript-eslint/strict-boolean-expressions": [
        "error",
        { allowNumber: false, allowString: false },
      ],
      "no-restricted-syntax": ["error", noEnum],
      "max-lines-per-function": ["error", { max: 70, skipComments: true, skipBlankLines: true }],
      "max-depth": ["error", 4],
      complexity: ["error", 15],
      eqeqeq: "error",
      "no-console": "error",
    },
  },
  {
    // The protocol folders: no clock, no randomness, no process, no timers, no promises.
    files: ["lib/{format,lease,fence,group}/**/*.ts"],
    rules: {
      "no-restricted-globals": [
        "error",
        ...injected.map((name) => ({ name, message: "Protocol code is pure; inject it." })),
      ],
      "no-restricted-properties": [
        "error",
        { object: "Math", property: "random", message: "Use the injected Random." },
      ],
      "no-restricted-syntax": [
        "error",
        noEnum,
        { selector: "AwaitExpression", message: "Protocol code is synchronous; yield the effect." },
        { selector: ":function[async=true]", message: "Protocol code is synchronous." },
      ],
    },
  },
  {
    files: ["test/**/*.ts", "bench/**/*.ts"],
    rules: { "max-lines-per-function": "off", "@typescript-eslint/no-non-null-assertion": "off" },
  },
  {
    files: ["**/*.js", "**/*.cjs"],
    extends: [tseslint.configs.disableTypeChecked],
    languageOptions: { globals: { module: "writable" } },
  },
);
