from tests.database.test_statistics import *
