import { execFileSync } from "node:child_process";
import { expect, test } from "vitest";
import { curl, python, quoted } from "../src/session/snippets.ts";

test("whatever is quoted is one word of a shell", () => {
  for (const text of ["a b", "it's", "$(touch x)`y`\"\\", "\n", ""]) {
    expect(execFileSync("bash", ["-c", `printf %s ${quoted(text)}`], { encoding: "utf8" })).toBe(text);
  }
});

test("what is copied is of its language, whatever the address", () => {
  const url = "http://127.0.0.1:8000/s/a'b\"c/mcp";
  for (const authorized of [false, true]) {
    execFileSync("bash", ["-n", "-c", curl(url, authorized)]);
    execFileSync("python3", ["-c", "import ast, sys; ast.parse(sys.stdin.read())"], { input: python(url, authorized) });
  }
});
