// Reads [[formula, display], ...] as JSON; writes [{html} or {error}, ...].
const katex = require("katex");

const render = ([formula, displayMode]) => {
  try {
    return { html: katex.renderToString(formula, { displayMode, strict: "error" }) };
  } catch (error) {
    return { error: error.message };
  }
};

const formulas = JSON.parse(require("fs").readFileSync(0, "utf8"));
process.stdout.write(JSON.stringify(formulas.map(render)));
