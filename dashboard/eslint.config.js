import { defineConfig, globalIgnores } from "eslint/config";
import typescript from "typescript-eslint";

// What a server, a client or an environment says is text: nothing here makes markup, code or styles of a string.
const MARKUP = ["innerHTML", "outerHTML", "insertAdjacentHTML", "dangerouslySetInnerHTML", "srcdoc", "setHTMLUnsafe"];
const selectors = MARKUP.flatMap((name) => [
  { selector: `MemberExpression[property.name='${name}']`, message: "What others say is text." },
  { selector: `JSXAttribute[name.name='${name}']`, message: "What others say is text." },
]);

export default defineConfig(
  globalIgnores(["dist/"]),
  typescript.configs.strictTypeChecked,
  {
    languageOptions: {
      parserOptions: { projectService: { allowDefaultProject: ["eslint.config.js"] }, tsconfigRootDir: import.meta.dirname },
    },
    rules: {
      "no-restricted-syntax": ["error", ...selectors],
      "no-eval": "error",
      "no-implied-eval": "error",
      "@typescript-eslint/restrict-template-expressions": ["error", { allowNumber: true }],
      "@typescript-eslint/no-confusing-void-expression": ["error", { ignoreArrowShorthand: true }],
      "@typescript-eslint/switch-exhaustiveness-check": ["error", { considerDefaultExhaustiveForUnions: true }],
    },
  },
  { files: ["**/*.js"], extends: [typescript.configs.disableTypeChecked] },
);
